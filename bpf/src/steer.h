/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What the program and its loader (lib.rs) agree on: the verdicts, the two
 * kinds of address and the sizes of the maps.
 */
#ifndef BYWAY_STEER_H
#define BYWAY_STEER_H

/*
 * Every frame ends in exactly one verdict, and every verdict is a counter.
 * The order is part of the agreement: see is_redirect().
 */
enum verdict {
	/* The kernel's, as if the program were not there. */
	PASS_NOT_OURS,
	PASS_MALFORMED,		/* a header we had to read is cut short */
	PASS_VLAN_DEPTH,	/* more tags than VLAN_DEPTH_MAX */
	PASS_EXT_HEADERS,	/* own address, more than EXT_HEADERS_MAX */
	PASS_OWN_OTHER,		/* own address, neither TCP nor ICMP */

	/* To the socket of the queue the frame came in on. */
	REDIRECT_TCP,
	REDIRECT_ARP,
	REDIRECT_NDP,
	REDIRECT_ICMP,
	REDIRECT_FRAGMENT,

	/* Ours, but no socket is registered for the queue: see steer(). */
	DROP_NO_SOCKET,
	/* The first fragment of TCP to a shared address' port: see shared(). */
	DROP_FRAGMENT,

	VERDICT_COUNT,
};

/* The value of an entry of own_ipv4 and own_ipv6. */
enum address_kind {
	ADDRESS_NONE = 0,
	/*
	 * The kernel does not have the address: all of its TCP and ICMP, its
	 * fragments and its address resolution are byway's.
	 */
	ADDRESS_OWN = 1,
	/*
	 * The kernel has the address: byway takes the TCP ports listed in
	 * own_ports, unfragmented and untagged, and the ICMP errors that
	 * quote a segment from one of them; nothing else.
	 */
	ADDRESS_HOST = 2,
};

/*
 * 802.1Q inside 802.1ad is the deepest nesting in use. A frame with a third
 * tag goes to the kernel, which may have a device for it.
 */
#define VLAN_DEPTH_MAX	2

/*
 * RFC 8200 4.1 knows six kinds of extension header, of which destination
 * options may come twice; eight leaves room for one more. The bound is also
 * the verifier's: an IPv6 chain costs at most eight turns of the loop.
 */
#define EXT_HEADERS_MAX	8

/* More queues than any NIC has (mlx5: 128, ice: 256); 8 bytes an entry. */
#define QUEUES_MAX	1024

/* Addresses of one instance; a front for more is a router's job. */
#define ADDRESSES_MAX	1024

#define PORTS_MAX	65536

#endif /* BYWAY_STEER_H */
