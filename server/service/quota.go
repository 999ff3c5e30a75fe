package service

import (
	"errors"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/clients"
)

// quotas bound what clients may hold at once.
type quotas struct {
	chats, calls *clients.Quota
	// arriving is for the bytes of messages that have begun to arrive.
	arriving *clients.Quota
	refused  atomic.Int64
}

func newQuotas(options Options) *quotas {
	quota := func(most int) *clients.Quota {
		return clients.NewQuota(int64(most), clients.Share(int64(most), options.ClientShare))
	}
	return &quotas{chats: quota(options.MaxChats), calls: quota(options.MaxCalls), arriving: quota(options.ArrivingBytes)}
}

// admit lets only so many chats, and other calls, in.
func (q *quotas) admit(next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		quota, what := q.calls, "calls"
		if request.URL.Path == routeguideconnect.RouteGuideRouteChatProcedure {
			quota, what = q.chats, "chats"
		}
		if err := quota.Take(request.RemoteAddr, 1); err != nil {
			_ = errorWriter.Write(response, request, q.refuse(what, err)) // Nobody is left to hear of an error.
			return
		}
		defer quota.Give(request.RemoteAddr, 1)
		next.ServeHTTP(response, request)
	})
}

// refuse counts what a quota has refused, and returns it as the client is told it.
func (q *quotas) refuse(what string, refused error) error {
	q.refused.Add(1)
	text := "this server holds as many " + what + " as it can: try again later"
	if errors.Is(refused, clients.ErrShare) {
		text = "this server holds as many " + what + " of one client as it may: end some, or try again later"
	}
	return connect.NewError(connect.CodeResourceExhausted, errors.New(text))
}
