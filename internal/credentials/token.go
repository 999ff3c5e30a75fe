// Package credentials reads and checks the credentials that both commands take: PEM files of TLS, and bearer tokens.
// It does not know whom they authenticate.
package credentials

import (
	"errors"
	"regexp"
)

// b64token is the syntax of a bearer token (https://www.rfc-editor.org/rfc/rfc6750#section-2.1).
var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// CheckToken returns an error if token is not a valid bearer token. The error does not contain the token.
func CheckToken(token string) error {
	if !b64token.MatchString(token) {
		return errors.New("a token has only letters, digits and -._~+/ with = at its end: no quotes, spaces or other characters")
	}
	return nil
}
