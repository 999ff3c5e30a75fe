package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/service"
)

// bad is a store that does with notes what it is told.
type bad struct {
	notes.Store

	append func(notes.Ticket) // nil keeps them
	read   func()             // nil reads them
}

func (b bad) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	if b.append == nil {
		b.Store.Append(ctx, at, note, ticket)
		return
	}
	b.append(ticket)
}

func (b bad) Range(ctx context.Context, at notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	if b.read != nil {
		b.read()
	}
	return b.Store.Range(ctx, at, span)
}

// grpcFrame returns a message as gRPC sends it.
func grpcFrame(t *testing.T, message proto.Message) []byte {
	t.Helper()
	encoded, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{0, 0, 0, 0, byte(len(encoded))}, encoded...)
}

// Each number counts what its name says, and nothing else does: all that are not 0 are looked at, after one thing has
// been caused.
func TestEachNumberCountsWhatItsNameSays(t *testing.T) {
	features, err := guide.Default()
	if err != nil {
		t.Fatal(err)
	}
	const (
		chatPath  = routeguideconnect.RouteGuideRouteChatProcedure
		routePath = routeguideconnect.RouteGuideRecordRouteProcedure
		listPath  = routeguideconnect.RouteGuideListFeaturesProcedure
		short     = 100 * time.Millisecond
	)
	note := grpcFrame(t, &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 1}, Message: "a"})
	everywhere := grpcFrame(t, &routeguide.Rectangle{
		Lo: &routeguide.Point{Latitude: -900000000, Longitude: -1800000000}, Hi: &routeguide.Point{Latitude: 900000000, Longitude: 1800000000},
	})
	for name, test := range map[string]struct {
		options     service.Options
		share       float64 // of 10 connections
		append      func(notes.Ticket)
		read        func()
		settings    []http2.Setting
		path        string
		sent        []byte
		end         bool // the client has sent all
		streams     int  // calls of that kind
		connections int  // beside the one with the calls
		want        map[string]int64
	}{
		"connections":         {connections: 2, want: map[string]int64{"connections": 3}},
		"connections.refused": {connections: 2, share: 0.1, want: map[string]int64{"connections": 1, "connections.refused": 2}},
		"chats":               {path: chatPath, streams: 2, want: map[string]int64{"connections": 1, "chats": 2}},
		"calls":               {path: routePath, streams: 3, want: map[string]int64{"connections": 1, "calls": 3}},
		"notes.arriving.bytes": {path: chatPath, streams: 1, sent: []byte{0, 0, 0, 0x40, 0, 1}, want: map[string]int64{
			"connections": 1, "chats": 1, "notes.arriving.bytes": 0x4000,
		}},
		"calls.refused": {path: routePath, streams: 3, options: service.Options{MaxCalls: 1}, want: map[string]int64{
			"connections": 1, "calls": 1, "calls.refused": 2,
		}},
		"calls.stalled": {
			path: listPath, streams: 1, sent: everywhere, end: true, options: service.Options{StallTimeout: short},
			settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}},
			want:     map[string]int64{"connections": 1, "calls.stalled": 1},
		},
		"replies.pending": {
			path: chatPath, streams: 1, sent: note, append: func(notes.Ticket) {},
			want: map[string]int64{"connections": 1, "chats": 1, "notes.received": 1, "replies.pending": 1},
		},
		"notes": {path: chatPath, streams: 1, sent: append(note, note...), want: map[string]int64{
			"connections": 1, "chats": 1, "notes.received": 2, "notes.sent": 3,
		}},
		"chats.stalled": {
			path: chatPath, streams: 1, sent: note, options: service.Options{Chats: chat.Options{StallTimeout: short}},
			settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}},
			want:     map[string]int64{"connections": 1, "notes.received": 1, "notes.sent": 1, "chats.stalled": 1},
		},
		"chats.shed": {
			path: chatPath, streams: 1, sent: append(note, note...), options: service.Options{Chats: chat.Options{MaxPendingInAll: 1}},
			append: func(notes.Ticket) {}, want: map[string]int64{"connections": 1, "notes.received": 2, "chats.shed": 1},
		},
		"store.errors": {
			path: chatPath, streams: 2, sent: note, append: func(ticket notes.Ticket) { ticket.Settle(0, notes.ErrUnavailable) },
			want: map[string]int64{"connections": 1, "notes.received": 2, "store.errors": 2},
		},
		"panics": {path: chatPath, streams: 1, sent: note, read: func() { panic("a test's") }, want: map[string]int64{
			"connections": 1, "notes.received": 1, "panics": 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := test.options
			options.Chats.Store = bad{notes.NewMemory(), test.append, test.read}
			running := service.New(guide.New(features), options)
			server, err := httpserver.Listen(t.Context(), "127.0.0.1:0", running, httpserver.Options{MaxConnections: 10, ClientShare: test.share, MaxStreams: 10})
			if err != nil {
				t.Fatal(err)
			}
			logs := logwriter.New(io.Discard, func(int64) {})
			defer logs.Close()
			served := make(chan error, 1)
			go func() { served <- server.Serve() }()
			defer func() {
				if err := errors.Join(server.Close(), <-served); err != nil {
					t.Error(err)
				}
				running.Drain()
				<-running.Drained()
				running.Close()
			}()
			caller, err := rawhttp2.Dial(server.Addr().String(), test.settings...)
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			caller.Discard()
			for range test.connections {
				conn, err := net.Dial("tcp", server.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			for i := range test.streams {
				stream := uint32(1 + 2*i)
				if err := errors.Join(caller.Open(stream, test.path, "application/grpc"), caller.WriteData(stream, test.end, test.sent)); err != nil {
					t.Fatal(err)
				}
			}
			got := make(map[string]int64)
			for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				clear(got)
				for _, number := range metrics(running, server, logs) {
					if value := number.Read(); value != 0 {
						got[strings.TrimPrefix(number.Name, "routeguide.")] = value
					}
				}
				if maps.Equal(got, test.want) {
					return
				}
			}
			t.Errorf("got %v, want %v", got, test.want)
		})
	}
}
