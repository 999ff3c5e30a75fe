package service

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/clientlimit"
)

const (
	// maxRefusals is how many refusals may be on their way to clients at once, and clientRefusals to one.
	maxRefusals    = 100
	clientRefusals = 10
)

// quotas bound what clients may hold at once.
type quotas struct {
	// health is for questions about it: who asks them is to get an answer when there are too many calls.
	chats, calls, health, refusals *clientlimit.Quota
	// arriving is for the bytes of messages that have begun to arrive.
	arriving *clientlimit.Quota
	refused  atomic.Int64
}

func newQuotas(options Options) *quotas {
	quota := func(most int) *clientlimit.Quota {
		return clientlimit.NewQuota(int64(most), clientlimit.Share(int64(most), options.ClientShare))
	}
	return &quotas{
		chats:    quota(options.MaxChats),
		calls:    quota(options.MaxCalls),
		health:   quota(options.MaxCalls),
		refusals: clientlimit.NewQuota(maxRefusals, clientRefusals),
		arriving: quota(options.ArrivingBytes),
	}
}

// admit lets only so many chats, and other calls, in. A call counts until next has written all of its answer.
// Refusals go by written.
func (q *quotas) admit(next http.Handler, written func(http.Handler) http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		quota, what := q.of(request.URL.Path)
		err := quota.Acquire(request.RemoteAddr, 1)
		if err == nil {
			defer quota.Release(request.RemoteAddr, 1)
			next.ServeHTTP(response, request)
			return
		}
		refusal := q.refuse(what, err)
		if q.refusals.Acquire(request.RemoteAddr, 1) != nil {
			panic(http.ErrAbortHandler) // That resets the stream: many are refused, and do not take it.
		}
		defer q.refusals.Release(request.RemoteAddr, 1)
		written(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			_ = errorWriter.Write(response, request, refusal) // Nobody is left to hear of an error.
		})).ServeHTTP(response, request)
	})
}

// of returns the quota of calls to a path, and what they are called.
func (q *quotas) of(path string) (*clientlimit.Quota, string) {
	switch {
	case path == routeguideconnect.RouteGuideRouteChatProcedure:
		return q.chats, "chats"
	case isHealth(path):
		return q.health, "questions about health"
	default:
		return q.calls, "calls"
	}
}

// isHealth returns whether a call to a path asks about health.
func isHealth(path string) bool {
	return strings.HasPrefix(path, "/"+grpchealth.HealthV1ServiceName+"/")
}

// refuse counts what a quota has refused, and returns it as the client is told it.
func (q *quotas) refuse(what string, refused error) error {
	q.refused.Add(1)
	text := "this server holds as many " + what + " as it can: try again later"
	if errors.Is(refused, clientlimit.ErrShare) {
		text = "this server holds as many " + what + " of one client as it may: end some, or try again later"
	}
	return connect.NewError(connect.CodeResourceExhausted, errors.New(text))
}
