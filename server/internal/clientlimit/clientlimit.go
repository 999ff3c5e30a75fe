// Package clientlimit limits each client: a token bucket for its rate, and quotas for what it holds at once. A client
// is an IP address of a peer, or an IPv6 /64. Headers such as X-Forwarded-For do not count, because a client can forge
// them. The package does not know what is limited.
package clientlimit

import "net/netip"

// clientBits is the length of the IPv6 prefix of a client: a site gets at least a /64
// (https://www.rfc-editor.org/rfc/rfc6177).
const clientBits = 64

// client is the IP prefix of one client.
type client = netip.Prefix

// clientAt returns the client at a peer's host:port. All invalid addresses are one client.
func clientAt(address string) client {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return client{}
	}
	ip := parsed.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = clientBits
	}
	prefix, _ := ip.Prefix(bits) // The error is for more bits than the address has.
	return prefix
}
