// Package interop tests this module against the stock programs of the field: grpc-go's RouteGuide
// client and server, grpcurl, buf and curl. It is a module of its own, so that those stay out of
// the dependencies of whoever imports RouteGuide.
//
// The stock programs run as processes. Their generated package must never be linked into one binary
// with ours: both register the same names, and the program would panic when it starts.
package interop
