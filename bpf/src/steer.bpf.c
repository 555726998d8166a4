// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Which frames are byway's.
 *
 *   frame -> Ethernet -> VLAN 0..2 -+- ARP ---------------------+
 *                                   +- IPv4 -+- fragment -------+
 *                                   |        +- TCP, ICMP ------+-> verdict
 *                                   +- IPv6 -> ext headers 0..8 +      |
 *                                   |          +- TCP, ICMPv6 --+      |
 *                                   +- anything else -----------+      v
 *                                                  counter, then XDP_PASS
 *                                                  or the queue's socket
 *
 * Only the headers that name an owner are looked at. Lengths of payloads,
 * checksums and everything else about validity are the stack's to judge, and
 * to count: a frame for byway that is broken behind those headers is
 * redirected all the same.
 *
 * Addresses and ports are map entries, so they change while frames flow.
 */
#include "parse.h"
#include "steer.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Keys in network order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, __be32);
	__type(value, enum address_kind);
} own_ipv4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct in6_addr);
	__type(value, enum address_kind);
} own_ipv6 SEC(".maps");

/* Only ADDRESS_HOST looks here. A few entries as a rule: not preallocated. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PORTS_MAX);
	__type(key, __be16);
	__type(value, __u8);
} own_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

static __always_inline enum address_kind ipv4_kind(__be32 addr)
{
	enum address_kind *kind = bpf_map_lookup_elem(&own_ipv4, &addr);

	return kind ? *kind : ADDRESS_NONE;
}

static __always_inline enum address_kind
ipv6_kind(const struct in6_addr *addr)
{
	struct in6_addr key = *addr;
	enum address_kind *kind = bpf_map_lookup_elem(&own_ipv6, &key);

	return kind ? *kind : ADDRESS_NONE;
}

/* Requests for an own address, and replies to what we asked in its name. */
static __always_inline enum verdict classify_arp(struct cursor *c)
{
	struct arp_ipv4_hdr *arp = parse_arp(c);

	if (!arp)
		return PASS_MALFORMED;
	if (arp->htype != bpf_htons(ARP_HTYPE_ETHERNET) ||
	    arp->ptype != bpf_htons(ETH_P_IP) ||
	    arp->hlen != ETH_ALEN || arp->plen != sizeof(__be32))
		return PASS_NOT_OURS;
	if (arp->oper != bpf_htons(ARP_REQUEST) &&
	    arp->oper != bpf_htons(ARP_REPLY))
		return PASS_NOT_OURS;

	return ipv4_kind(arp->tpa) == ADDRESS_OWN ? REDIRECT_ARP : PASS_NOT_OURS;
}

static __always_inline enum verdict classify_tcp(struct cursor *c,
						 enum address_kind kind)
{
	struct tcphdr *tcp = parse_tcp(c);
	__be16 port;

	if (!tcp)
		return PASS_MALFORMED;

	/* Whatever the port: a SYN to a closed one gets byway's RST. */
	if (kind == ADDRESS_OWN)
		return REDIRECT_TCP;

	port = tcp->dest;
	return bpf_map_lookup_elem(&own_ports, &port) ? REDIRECT_TCP
						      : PASS_NOT_OURS;
}

static __always_inline int is_own_port(__be16 port)
{
	return bpf_map_lookup_elem(&own_ports, &port) != NULL;
}

/*
 * A fragment to an address shared with the kernel, which reassembles it and
 * finds nobody at our port. The first one names the port: without it the
 * kernel never has the whole, and never answers it with RST.
 */
static __always_inline enum verdict shared_fragment(struct cursor *c, int is_first)
{
	struct tcp_ports *ports;

	if (!is_first)
		return PASS_NOT_OURS;

	ports = parse_ports(c);
	if (!ports)
		return PASS_MALFORMED;

	return is_own_port(ports->dest) ? DROP_FRAGMENT : PASS_NOT_OURS;
}

/* Whether the segment that an error to a shared address quotes is ours. */
static __always_inline enum verdict quoted_tcp(struct cursor *c)
{
	struct tcp_ports *ports = parse_ports(c);

	if (!ports)
		return PASS_MALFORMED;

	return is_own_port(ports->source) ? REDIRECT_ICMP : PASS_NOT_OURS;
}

static __always_inline enum verdict shared_icmp(struct cursor *c)
{
	struct icmp_hdr *icmp = parse_icmp(c);
	struct iphdr *quoted;

	if (!icmp)
		return PASS_MALFORMED;
	if (icmp->type != ICMP_DEST_UNREACH &&
	    icmp->type != ICMP_TIME_EXCEEDED &&
	    icmp->type != ICMP_PARAMETERPROB)
		return PASS_NOT_OURS;

	quoted = parse_ipv4(c);
	if (!quoted)
		return PASS_MALFORMED;
	if (quoted->protocol != IPPROTO_TCP ||
	    ipv4_kind(quoted->saddr) != ADDRESS_HOST)
		return PASS_NOT_OURS;

	return quoted_tcp(c);
}

static __always_inline enum verdict shared_icmpv6(struct cursor *c)
{
	struct icmp_hdr *icmp = parse_icmp(c);
	struct ipv6hdr *quoted;

	if (!icmp)
		return PASS_MALFORMED;
	if (icmp->type >= ICMPV6_INFO_FIRST)
		return PASS_NOT_OURS;

	quoted = parse_ipv6(c);
	if (!quoted)
		return PASS_MALFORMED;
	/* byway's segments have no extension headers. */
	if (quoted->nexthdr != IPPROTO_TCP ||
	    ipv6_kind(&quoted->saddr) != ADDRESS_HOST)
		return PASS_NOT_OURS;

	return quoted_tcp(c);
}

static __always_inline enum verdict shared_ipv4(struct cursor *c,
						struct iphdr *ip)
{
	__be16 frag = ip->frag_off;

	if (ip->protocol == IPPROTO_ICMP)
		return frag & bpf_htons(IPV4_FRAG_MASK) ? PASS_NOT_OURS
							: shared_icmp(c);
	if (ip->protocol != IPPROTO_TCP)
		return PASS_NOT_OURS;
	if (frag & bpf_htons(IPV4_FRAG_MASK))
		return shared_fragment(c, !(frag & bpf_htons(IPV4_OFFSET_MASK)));

	return classify_tcp(c, ADDRESS_HOST);
}

static __always_inline enum verdict shared_ipv6(struct cursor *c, __u8 nexthdr)
{
	struct frag_hdr *fragment;

	switch (nexthdr) {
	case IPPROTO_TCP:
		return classify_tcp(c, ADDRESS_HOST);
	case IPPROTO_ICMPV6:
		return shared_icmpv6(c);
	case IPPROTO_FRAGMENT:
		fragment = parse_fragment(c);
		if (!fragment)
			return PASS_MALFORMED;
		if (fragment->nexthdr != IPPROTO_TCP)
			return PASS_NOT_OURS;
		return shared_fragment(c, !(fragment->frag_off &
					    bpf_htons(IPV6_OFFSET_MASK)));
	default:
		return PASS_NOT_OURS;
	}
}

static __always_inline enum verdict classify_ipv4(struct cursor *c, int tagged)
{
	struct iphdr *ip = parse_ipv4(c);
	enum address_kind kind;

	if (!ip)
		return PASS_MALFORMED;

	kind = ipv4_kind(ip->daddr);
	if (kind == ADDRESS_NONE)
		return PASS_NOT_OURS;

	/* In a VLAN the address is some other interface's, if anybody's. */
	if (kind == ADDRESS_HOST)
		return tagged ? PASS_NOT_OURS : shared_ipv4(c, ip);

	/*
	 * Only the first fragment has ports, and reassembly wants them all
	 * in one place.
	 */
	if (ip->frag_off & bpf_htons(IPV4_FRAG_MASK))
		return REDIRECT_FRAGMENT;

	if (ip->protocol == IPPROTO_TCP)
		return classify_tcp(c, kind);
	if (ip->protocol != IPPROTO_ICMP)
		return PASS_OWN_OTHER;

	return parse_icmp(c) ? REDIRECT_ICMP : PASS_MALFORMED;
}

/*
 * To an own address all of ICMPv6 is ours. To a group (solicited-node, or
 * all nodes) it is ours if it asks for, or claims, an own address.
 */
static __always_inline enum verdict classify_icmpv6(struct cursor *c,
						    enum address_kind kind)
{
	struct icmp_hdr *icmp = parse_icmp(c);
	struct in6_addr *target;

	if (!icmp)
		return PASS_MALFORMED;
	if (icmp->type != ICMPV6_NS && icmp->type != ICMPV6_NA)
		return kind == ADDRESS_OWN ? REDIRECT_ICMP : PASS_NOT_OURS;

	target = parse_ndp_target(c);
	if (!target)
		return PASS_MALFORMED;
	if (kind == ADDRESS_OWN || ipv6_kind(target) == ADDRESS_OWN)
		return REDIRECT_NDP;

	return PASS_NOT_OURS;
}

static __always_inline enum verdict classify_ipv6(struct cursor *c, int tagged)
{
	struct ipv6hdr *ip = parse_ipv6(c);
	__u8 nexthdr;
	enum address_kind kind;
	int i;

	if (!ip)
		return PASS_MALFORMED;

	kind = ipv6_kind(&ip->daddr);
	if (kind == ADDRESS_NONE && ip->daddr.s6_addr[0] != 0xff)
		return PASS_NOT_OURS;
	if (kind == ADDRESS_HOST && tagged)
		return PASS_NOT_OURS;

	nexthdr = ip->nexthdr;
	for (i = 0; i < EXT_HEADERS_MAX && is_ext_header(nexthdr); i++) {
		if (!skip_ext_header(c, &nexthdr))
			return PASS_MALFORMED;
	}

	if (kind == ADDRESS_HOST)
		return shared_ipv6(c, nexthdr);
	if (nexthdr == IPPROTO_ICMPV6)
		return classify_icmpv6(c, kind);
	if (kind == ADDRESS_NONE)
		return PASS_NOT_OURS;
	if (nexthdr == IPPROTO_TCP)
		return classify_tcp(c, kind);
	if (nexthdr == IPPROTO_FRAGMENT)
		return REDIRECT_FRAGMENT;

	return is_ext_header(nexthdr) ? PASS_EXT_HEADERS : PASS_OWN_OTHER;
}

static __always_inline enum verdict classify(struct cursor *c)
{
	struct ethhdr *eth = parse_ethernet(c);
	struct vlan_hdr *vlan;
	__be16 proto;
	int tagged = 0;
	int i;

	if (!eth)
		return PASS_MALFORMED;

	proto = eth->h_proto;
	for (i = 0; i < VLAN_DEPTH_MAX && is_vlan(proto); i++) {
		vlan = parse_vlan(c);
		if (!vlan)
			return PASS_MALFORMED;
		proto = vlan->proto;
		tagged |= vlan->tci & bpf_htons(VLAN_VID_MASK);
	}

	switch (proto) {
	case bpf_htons(ETH_P_IP):
		return classify_ipv4(c, tagged);
	case bpf_htons(ETH_P_IPV6):
		return classify_ipv6(c, tagged);
	case bpf_htons(ETH_P_ARP):
		return classify_arp(c);
	default:
		return is_vlan(proto) ? PASS_VLAN_DEPTH : PASS_NOT_OURS;
	}
}

static __always_inline int is_redirect(enum verdict v)
{
	return v >= REDIRECT_TCP && v <= REDIRECT_FRAGMENT;
}

static __always_inline void count(enum verdict v)
{
	__u32 key = v;
	__u64 *n = bpf_map_lookup_elem(&verdicts, &key);

	if (n)
		(*n)++;
}

/*
 * "xdp.frags": with a plain program the driver caps the interface's MTU at
 * what fits one page (3506 on veth, 3498 on mlx5), for the kernel's traffic
 * beside ours too. The headers lie in the first buffer either way. byway's
 * sockets use XDP_USE_SG where kernel and driver have it: a packet larger than
 * one UMEM frame arrives in several. Elsewhere the socket drops and counts it
 * (rx_dropped); what is only scattered is gathered into a single UMEM frame.
 */
SEC("xdp.frags")
int steer(struct xdp_md *ctx)
{
	struct cursor c = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	enum verdict v = classify(&c);
	int action = v == DROP_FRAGMENT ? XDP_DROP : XDP_PASS;

	/*
	 * A frame of ours without a socket (queue not served, start-up, or a
	 * core gone) is dropped, not passed: a kernel that has the address
	 * would answer with RST and end the peer's connection, where silence
	 * costs it one retransmission.
	 */
	if (is_redirect(v)) {
		action = bpf_redirect_map(&sockets, ctx->rx_queue_index,
					  XDP_DROP);
		if (action != XDP_REDIRECT)
			v = DROP_NO_SOCKET;
	}

	count(v);
	return action;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
