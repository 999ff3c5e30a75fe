package service

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/clientlimit"
)

const (
	// maxRefusals is the quota of refusals in flight, and clientRefusals that of one client.
	maxRefusals    = 100
	clientRefusals = 10
)

// quotas bound the resources that clients hold at once, in total and per client.
type quotas struct {
	// Calls in flight. Health checks have their own quota, so that they are answered when calls are over theirs.
	chats, followers, calls, health, refusals *clientlimit.Quota
	// arriving counts the bytes of long messages that have arrived in part.
	arriving *clientlimit.Quota
	refused  atomic.Int64
}

func newQuotas(options Options) *quotas {
	quota := func(most int) *clientlimit.Quota {
		return clientlimit.NewQuota(int64(most), clientlimit.Share(int64(most), options.ClientShare))
	}
	return &quotas{
		chats:     quota(options.MaxChats),
		followers: quota(options.MaxFollowers),
		calls:     quota(options.MaxCalls),
		health:    quota(options.MaxCalls),
		refusals:  clientlimit.NewQuota(maxRefusals, clientRefusals),
		arriving:  quota(options.ArrivingBytes),
	}
}

// admit acquires the quota of a call, and releases it once next has written the whole response. A call over its
// quota gets a refusal, written through written.
func (q *quotas) admit(next http.Handler, written func(http.Handler) http.Handler) http.Handler {
	return &admission{quotas: q, next: next, written: written, errorWriter: connect.NewErrorWriter()}
}

type admission struct {
	*quotas

	next        http.Handler
	written     func(http.Handler) http.Handler
	errorWriter *connect.ErrorWriter
}

// ServeHTTP implements [http.Handler].
func (a *admission) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if a.enter(response, request) {
		defer a.leave(request)
		a.next.ServeHTTP(response, request)
	}
}

// enter acquires the quota of a request. If it is exceeded, it tells the client and returns false.
func (a *admission) enter(response http.ResponseWriter, request *http.Request) bool {
	quota, what := a.of(request.URL.Path)
	err := quota.Acquire(request.RemoteAddr, 1)
	if err != nil {
		a.writeRefusal(response, request, a.refuse(what, err))
	}
	return err == nil
}

// leave is the inverse of enter.
func (a *admission) leave(request *http.Request) {
	quota, _ := a.of(request.URL.Path)
	quota.Release(request.RemoteAddr, 1)
}

// writeRefusal tells the client that a quota is exceeded.
func (a *admission) writeRefusal(response http.ResponseWriter, request *http.Request, refusal error) {
	if a.refusals.Acquire(request.RemoteAddr, 1) != nil {
		panic(http.ErrAbortHandler) // Resets the stream: too many refusals wait for their clients to read them.
	}
	defer a.refusals.Release(request.RemoteAddr, 1)
	a.written(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		_ = a.errorWriter.Write(response, request, refusal) // It fails only if the connection does, and then the client is gone.
	})).ServeHTTP(response, request)
}

// of returns the quota of calls to a path, and its name for error texts.
func (q *quotas) of(path string) (*clientlimit.Quota, string) {
	switch {
	case path == routeguideconnect.RouteGuideRouteChatProcedure:
		return q.chats, "chats"
	case path == routeguidev1connect.NoteServiceFollowNotesProcedure:
		return q.followers, "followers"
	case isHealth(path):
		return q.health, "health checks"
	default:
		return q.calls, "calls"
	}
}

// isHealth reports whether a call to the path is a health check.
func isHealth(path string) bool {
	return strings.HasPrefix(path, "/"+grpchealth.HealthV1ServiceName+"/")
}

// refuse counts a call or message over its quota, and returns the error for the client.
func (q *quotas) refuse(what string, refused error) error {
	q.refused.Add(1)
	text := "too many " + what + " on this server: retry later"
	if errors.Is(refused, clientlimit.ErrShare) {
		text = "too many " + what + " of this client: end some, or retry later"
	}
	return connect.NewError(connect.CodeResourceExhausted, errors.New(text))
}
