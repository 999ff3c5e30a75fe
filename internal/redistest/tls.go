package redistest

import (
	"testing"

	"example.com/routeguide/internal/certtest"
)

// StartTLS starts a node with TLS only, and returns it with the path of its self-signed certificate.
func StartTLS(t *testing.T) (node *Node, certificate string) {
	t.Helper()
	certificate, key := certtest.SelfSigned(t)
	return start(t, "0", freePort(t),
		"--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"), certificate
}
