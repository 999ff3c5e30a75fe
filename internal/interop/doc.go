// Package interop tests this module against stock programs: grpc-go's RouteGuide client and server, gRPC's C core,
// grpcurl, buf, curl, nghttp2's clients, h2spec, the Connect conformance suite, and the proxies of docs/proxies.md. It is a
// module of its own, so that these programs are no dependencies of the main module.
//
// The stock programs run as processes. Their generated package must never be linked into one binary with ours: both
// register the same Protobuf names, and the program would panic at startup.
package interop
