// Package bearer is the syntax of bearer tokens. It does not know which tokens let whom in.
package bearer

import (
	"errors"
	"regexp"
)

// syntax is b64token (https://www.rfc-editor.org/rfc/rfc6750#section-2.1).
var syntax = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// Check returns an error unless token can be sent as a bearer token. The error does not show it.
func Check(token string) error {
	if !syntax.MatchString(token) {
		return errors.New("a token has only letters, digits and -._~+/ with = at its end: no quotes, spaces or other characters")
	}
	return nil
}
