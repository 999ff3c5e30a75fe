package service

import (
	"net/http"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// procedures routes requests by exact path, /<service>/<method>. [http.ServeMux] redirects other forms of a path,
// such as //<service>/<method>, and RPC clients do not follow redirects.
type procedures map[string]http.Handler

func (p procedures) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if handler, ok := p[request.URL.Path]; ok {
		handler.ServeHTTP(response, request)
		return
	}
	http.NotFound(response, request)
}

// add returns a function that adds a service's methods. Its parameters are the results of the constructors that
// Connect generates, and of packages like grpchealth.
func (p procedures) add(methods ...string) func(path string, handler http.Handler) {
	return func(path string, handler http.Handler) {
		for _, method := range methods {
			p[path+method] = handler
		}
	}
}

// methodsOf returns the names of a service's methods.
func methodsOf(service protoreflect.ServiceDescriptor) []string {
	methods := make([]string, service.Methods().Len())
	for i := range methods {
		methods[i] = string(service.Methods().Get(i).Name())
	}
	return methods
}
