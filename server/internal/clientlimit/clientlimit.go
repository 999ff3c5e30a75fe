// Package clients bounds what each client may take: how fast, and how much at once. It tells clients apart by
// the address that they call from, and knows nothing of what they ask for. Who a client says that it calls for,
// in a header, does not count: it may say what it likes.
package clientlimit

import "net/netip"

// clientBits is how much of an IPv6 address says whose it is: a home or a host gets 64 bits for itself
// (https://www.rfc-editor.org/rfc/rfc6177).
const clientBits = 64

// client is the addresses that one client has.
type client = netip.Prefix

// clientAt returns the client that calls from an address, host:port. What is no address is one client.
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
	prefix, _ := ip.Prefix(bits) // The error is one of a number of bits that the address does not have.
	return prefix
}
