package routechat

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"slices"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
)

// Leave leaves a note once, and returns it as it was kept. It makes an id for the note, and calls LeaveNote with it until
// the server has answered, whatever happens to the connection or to the server meanwhile.
//
// It retries with exponential backoff and full jitter, from 0.5 to 20 s, until ctx ends: then the code of the error is
// DEADLINE_EXCEEDED or CANCELED, the error of the last attempt is in its chain, and the note may have been left. It
// returns any other error at once if no retry can mend it: the codes other than UNAVAILABLE, UNKNOWN,
// RESOURCE_EXHAUSTED, ABORTED, INTERNAL, CANCELED and DEADLINE_EXCEEDED, above all INVALID_ARGUMENT,
// UNAUTHENTICATED, PERMISSION_DENIED, ALREADY_EXISTS, UNIMPLEMENTED and DATA_LOSS; and a server certificate that is
// not valid. RESOURCE_EXHAUSTED is also the code of a request beyond the server's limit of a message (512 KiB, if it
// was not changed), which is retried in vain.
func (c *Client) Leave(ctx context.Context, note *routeguide.RouteNote) (*routeguidev1.Note, error) {
	return c.LeaveWithID(ctx, note, rand.Text())
}

// LeaveWithID is like [Client.Leave], with an id that the caller has made up: to go on after a restart of the client
// itself, or to recognise the note where it is followed. It returns ALREADY_EXISTS if the id belongs to a note with
// another text at this location.
func (c *Client) LeaveWithID(ctx context.Context, note *routeguide.RouteNote, id string) (*routeguidev1.Note, error) {
	request := &routeguidev1.LeaveNoteRequest{Location: note.GetLocation(), Text: note.GetMessage(), Id: id}
	var failed error // of the last attempt that ctx did not end
	var backoff backoff
	for ctx.Err() == nil {
		response, err := c.LeaveNote(ctx, request)
		switch {
		case err == nil:
			return response.GetNote(), nil
		case ctx.Err() != nil:
			return nil, ended(ctx, failed)
		case !retryable(err):
			return nil, err
		}
		failed = err
		sleep(ctx, backoff.next())
	}
	return nil, ended(ctx, failed)
}

// retryableCodes are the codes of a server, or of a connection to it, that may be another one later. CANCELED and
// DEADLINE_EXCEEDED are among them, since they are not from the context of the call.
var retryableCodes = []connect.Code{
	connect.CodeUnavailable, connect.CodeUnknown, connect.CodeResourceExhausted, connect.CodeAborted, connect.CodeInternal,
	connect.CodeCanceled, connect.CodeDeadlineExceeded,
}

// retryable returns whether a call that failed with err, while its context has not ended, may succeed later.
func retryable(err error) bool {
	return slices.Contains(retryableCodes, connect.CodeOf(err)) && !invalidCertificate(err)
}

// invalidCertificate returns whether a call failed because the server's certificate is not valid.
func invalidCertificate(err error) bool {
	_, invalid := errors.AsType[*tls.CertificateVerificationError](err)
	return invalid
}
