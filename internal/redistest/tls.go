package redistest

import (
	"testing"

	"example.com/routeguide/internal/certtest"
)

// StartTLS runs a node that speaks TLS only, and returns it with the file of the certificate by which it
// is known.
func StartTLS(t *testing.T) (node *Node, certificate string) {
	t.Helper()
	certificate, key := certtest.SelfSigned(t)
	return start(t, "0", freePort(t),
		"--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"), certificate
}
