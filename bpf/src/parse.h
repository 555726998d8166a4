/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Bounds-checked views of a frame's headers. Each parse_*() returns a header
 * that lies within the frame whole, with the cursor moved behind it, or NULL.
 */
#ifndef BYWAY_PARSE_H
#define BYWAY_PARSE_H

#include <stddef.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct cursor {
	void *pos;
	void *end;
};

#define VLAN_VID_MASK	0x0fff	/* 0: a priority, no VLAN */

struct vlan_hdr {
	__be16 tci;
	__be16 proto;
};

/* RFC 826, for Ethernet and IPv4. */
struct arp_ipv4_hdr {
	__be16 htype;
	__be16 ptype;
	__u8 hlen;
	__u8 plen;
	__be16 oper;
	__u8 sha[ETH_ALEN];
	__be32 spa;
	__u8 tha[ETH_ALEN];
	__be32 tpa;
} __attribute__((packed));

/* The part all ICMP and ICMPv6 messages share, with the four octets behind. */
struct icmp_hdr {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

/* The first eight octets of every IPv6 extension header. */
struct ext_hdr {
	__u8 nexthdr;
	__u8 len;
	__u8 body[6];
};

/* RFC 8200 4.5. */
struct frag_hdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 id;
};

/* What RFC 792 and 4443 have errors quote of a segment at least. */
struct tcp_ports {
	__be16 source;
	__be16 dest;
	__be32 seq;
};

#define ARP_HTYPE_ETHERNET	1
#define ARP_REQUEST		1
#define ARP_REPLY		2

#define IPV4_FRAG_MASK		0x3fff	/* MF and the offset, not DF */
#define IPV4_OFFSET_MASK	0x1fff
#define IPV6_OFFSET_MASK	0xfff8

#define ICMP_DEST_UNREACH	3
#define ICMP_TIME_EXCEEDED	11
#define ICMP_PARAMETERPROB	12

#define ICMPV6_INFO_FIRST	128	/* below: errors */
#define ICMPV6_NS		135
#define ICMPV6_NA		136

static __always_inline void *take(struct cursor *c, __u32 len)
{
	void *hdr = c->pos;

	if (hdr + len > c->end)
		return NULL;

	c->pos = hdr + len;
	return hdr;
}

static __always_inline struct ethhdr *parse_ethernet(struct cursor *c)
{
	return take(c, sizeof(struct ethhdr));
}

static __always_inline struct vlan_hdr *parse_vlan(struct cursor *c)
{
	return take(c, sizeof(struct vlan_hdr));
}

static __always_inline struct arp_ipv4_hdr *parse_arp(struct cursor *c)
{
	return take(c, sizeof(struct arp_ipv4_hdr));
}

static __always_inline struct tcphdr *parse_tcp(struct cursor *c)
{
	return take(c, sizeof(struct tcphdr));
}

static __always_inline struct tcp_ports *parse_ports(struct cursor *c)
{
	return take(c, sizeof(struct tcp_ports));
}

static __always_inline struct frag_hdr *parse_fragment(struct cursor *c)
{
	return take(c, sizeof(struct frag_hdr));
}

static __always_inline struct icmp_hdr *parse_icmp(struct cursor *c)
{
	return take(c, sizeof(struct icmp_hdr));
}

static __always_inline struct in6_addr *parse_ndp_target(struct cursor *c)
{
	return take(c, sizeof(struct in6_addr));
}

/* The header with its options, which are skipped by length, never read. */
static __always_inline struct iphdr *parse_ipv4(struct cursor *c)
{
	struct iphdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return NULL;
	if (!take(c, ip->ihl * 4 - sizeof(*ip)))
		return NULL;

	return ip;
}

static __always_inline struct ipv6hdr *parse_ipv6(struct cursor *c)
{
	struct ipv6hdr *ip = take(c, sizeof(*ip));

	if (!ip || ip->version != 6)
		return NULL;

	return ip;
}

static __always_inline int is_vlan(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) ||
	       proto == bpf_htons(ETH_P_8021AD);
}

/* The headers that have a length and a next header, the fragment's apart. */
static __always_inline int is_ext_header(__u8 nexthdr)
{
	return nexthdr == IPPROTO_HOPOPTS || nexthdr == IPPROTO_ROUTING ||
	       nexthdr == IPPROTO_DSTOPTS || nexthdr == IPPROTO_AH;
}

/*
 * Moves the cursor behind the extension header it stands before, and
 * *nexthdr to what follows. False if the header is cut short.
 */
static __always_inline int skip_ext_header(struct cursor *c, __u8 *nexthdr)
{
	struct ext_hdr *ext = take(c, sizeof(*ext));
	__u32 unit;

	if (!ext)
		return 0;

	/*
	 * The length does not count the first eight octets; its unit is eight
	 * octets (RFC 8200 4.3), or for AH four (RFC 4302 2.2).
	 */
	unit = *nexthdr == IPPROTO_AH ? 4 : 8;

	*nexthdr = ext->nexthdr;
	return take(c, ext->len * unit) != NULL;
}

#endif /* BYWAY_PARSE_H */
