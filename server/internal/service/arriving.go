package service

import (
	"context"
	"io"
	"net/http"
)

// withArriving is a middleware that bounds what unary requests with a note hold in memory: beyond [shortBytes], they must have room in the
// quota of arriving bytes, until the handler returns.
func (q *quotas) withArriving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		body := &arrivingBody{ReadCloser: request.Body, quotas: q, peer: request.RemoteAddr}
		defer func() { q.arriving.Release(body.peer, body.held) }()
		request = request.WithContext(context.WithValue(request.Context(), arrivingKey{}, body))
		request.Body = body
		next.ServeHTTP(response, request)
	})
}

type arrivingKey struct{}

// arrivingBody is a request body that holds quota for what was read. One goroutine at a time uses it.
type arrivingBody struct {
	io.ReadCloser

	quotas *quotas
	peer   string
	read   int64 // bytes
	held   int64 // bytes of the quota
}

func (b *arrivingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if full := b.hold(b.read); full != nil {
		return 0, full
	}
	return n, err
}

// hold acquires quota for a request of a size, as far as it does not hold it yet. The error has a code.
func (b *arrivingBody) hold(bytes int64) error {
	more := bytes - shortBytes - b.held
	if more <= 0 {
		return nil
	}
	if err := b.quotas.arriving.Acquire(b.peer, more); err != nil {
		return b.quotas.refuse("long messages", err)
	}
	b.held += more
	return nil
}

// holdText acquires quota for the text of a request, which may have been compressed, and once more for that of the response.
func holdText(ctx context.Context, text string) error {
	if body, ok := ctx.Value(arrivingKey{}).(*arrivingBody); ok {
		return body.hold(2 * int64(len(text)))
	}
	return nil
}
