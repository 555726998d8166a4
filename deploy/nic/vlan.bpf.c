// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A switch's port in a tagged VLAN, for test.py: as traffic control on the tap
 * that the guest's NIC is connected to. Where frames go to the guest they get
 * a tag; where they come from it, they have to have one, and lose it.
 */
#define VID		79
#define TPID		0x0081 /* 802.1Q, 0x8100 in network order */
#define TC_ACT_OK	0
#define TC_ACT_SHOT	2

/* As far as `struct __sk_buff` of linux/bpf.h is of interest. */
struct skb {
	unsigned int len;
	unsigned int pkt_type;
	unsigned int mark;
	unsigned int queue_mapping;
	unsigned int protocol;
	unsigned int vlan_present;
};

/* bpf-helpers(7), by their numbers. */
static long (*const push)(void *, unsigned short, unsigned short) = (void *)18;
static long (*const pop)(void *) = (void *)19;

__attribute__((section("tc/tag"), used)) int tag(struct skb *skb)
{
	return push(skb, TPID, VID) ? TC_ACT_SHOT : TC_ACT_OK;
}

__attribute__((section("tc/untag"), used)) int untag(struct skb *skb)
{
	return skb->vlan_present && !pop(skb) ? TC_ACT_OK : TC_ACT_SHOT;
}

__attribute__((section("license"), used)) char LICENSE[] = "Dual MIT/GPL";
