package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

// stubStore is a store whose operations tests can replace or observe.
type stubStore struct {
	notes.Store

	append func(notes.Ticket) // replaces Append, unless nil
	read   func()             // called before Range, unless nil
}

func (s stubStore) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	if s.read != nil {
		// The reply to the first note of a location is not read.
		if _, err := notes.Append(ctx, s.Store, location, note); err != nil {
			ticket.Settle(notes.Receipt{}, err)
			return
		}
	}
	if s.append == nil {
		s.Store.Append(ctx, location, note, ticket)
		return
	}
	s.append(ticket)
}

func (s stubStore) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	if s.read != nil {
		s.read()
	}
	return s.Store.Range(ctx, location, span)
}

// encodeEnvelope returns a message as an envelope.
func encodeEnvelope(t *testing.T, message proto.Message) []byte {
	t.Helper()
	encoded, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return envelope(0, encoded)
}

// Each event changes the metrics that name it, and no others: the test compares all metrics that are not 0.
func TestMetricsCountOnlyTheirEvents(t *testing.T) {
	features, err := guide.Default()
	if err != nil {
		t.Fatal(err)
	}
	const (
		chatPath  = routeguideconnect.RouteGuideRouteChatProcedure
		routePath = routeguideconnect.RouteGuideRecordRouteProcedure
		listPath  = routeguideconnect.RouteGuideListFeaturesProcedure
		livePath  = routeguidev1connect.NoteServiceFollowNotesProcedure
		short     = 100 * time.Millisecond
	)
	note := encodeEnvelope(t, &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 1}, Message: "a"})
	everywhere := encodeEnvelope(t, &routeguide.Rectangle{
		Lo: &routeguide.Point{Latitude: -900000000, Longitude: -1800000000}, Hi: &routeguide.Point{Latitude: 900000000, Longitude: 1800000000},
	})
	place := encodeEnvelope(t, &routeguidev1.FollowNotesRequest{Filter: &routeguidev1.FollowNotesRequest_Location{Location: &routeguide.Point{}}})
	for name, test := range map[string]struct {
		options     service.Options
		share       float64 // ClientShare of 10 connections
		append      func(notes.Ticket)
		read        func()
		settings    []http2.Setting
		path        string
		sent        []byte // DATA of each stream
		end         bool   // half-close after sent
		streams     int    // number of calls to path
		connections int    // number of connections without calls
		want        map[string]int64
	}{
		"connections":         {connections: 2, want: map[string]int64{"connections": 3}},
		"connections.refused": {connections: 2, share: 0.1, want: map[string]int64{"connections": 1, "connections.refused": 2}},
		"chats":               {path: chatPath, streams: 2, want: map[string]int64{"connections": 1, "chats": 2}},
		"followers":           {path: livePath, streams: 2, sent: place, end: true, want: map[string]int64{"connections": 1, "followers": 2}},
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
		"requests.unread.bytes": {
			path: chatPath, streams: 1, sent: slices.Concat(note, note, note), options: service.Options{Chats: chat.Options{MaxPending: 1}}, append: func(notes.Ticket) {},
			want: map[string]int64{"connections": 1, "chats": 1, "notes.received": 1, "replies.pending": 1, "requests.unread.bytes": int64(3 * len(note))}, // They count until the handler waits for more.
		},
		"notes": {path: chatPath, streams: 1, sent: append(note, note...), want: map[string]int64{
			"connections": 1, "chats": 1, "notes.received": 2, "notes.sent": 3,
		}},
		"calls.stalled, a chat": {
			path: chatPath, streams: 1, sent: note, options: service.Options{StallTimeout: short},
			settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}},
			want:     map[string]int64{"connections": 1, "notes.received": 1, "notes.sent": 1, "calls.stalled": 1},
		},
		"chats.shed": {
			path: chatPath, streams: 1, sent: append(note, note...), options: service.Options{Chats: chat.Options{MaxPendingInAll: 1}},
			append: func(notes.Ticket) {}, want: map[string]int64{"connections": 1, "notes.received": 2, "chats.shed": 1},
		},
		"store.errors": {
			path: chatPath, streams: 2, sent: note, append: func(ticket notes.Ticket) { ticket.Settle(notes.Receipt{}, notes.ErrUnavailable) },
			want: map[string]int64{"connections": 1, "notes.received": 2, "store.errors": 2},
		},
		"panics": {path: chatPath, streams: 1, sent: note, read: func() { panic("a test's") }, want: map[string]int64{
			"connections": 1, "notes.received": 1, "panics": 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := test.options
			options.Chats.Store = stubStore{memorystore.New(), test.append, test.read}
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

func TestAdminServesMetrics(t *testing.T) {
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server, address, err := process.StartServer(program, "--store", "pebble:"+t.TempDir(), "--admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := callAndChat(t.Context(), routechat.Config{}, "http://"+address); err != nil {
		t.Fatal(err)
	}
	match, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await(`msg="chat ended" peer=127.0.0.1:\d+ protocol=connect in=1 out=1 duration=\S+ code=ok`); err != nil {
		t.Error(err)
	}
	metrics := get(t, "http://"+match[1]+"/metrics")
	for _, want := range []string{
		`routeguide_notes_received_total 2`, `routeguide_notes_sent_total 1`, `routeguide_chats 0`, `routeguide_replies_pending 0`,
		`routeguide_connections `, `routeguide_calls_stalled_total 0`, `routeguide_chats_shed_total 0`, `routeguide_store_errors_total 0`,
		`routeguide_panics_total 0`, `routeguide_store_commit_duration_seconds_count 2`, `go_goroutines`, `process_resident_memory_bytes`,
		`rpc_method="routeguide.RouteGuide/RouteChat"`, `rpc_method="routeguide.RouteGuide/GetFeature"`, `rpc_method="routeguide.v1.NoteService/LeaveNote"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no metric %s in:\n%s", want, metrics)
		}
	}
	checkDashboard(t, metrics)
	if ready := get(t, "http://"+match[1]+"/readyz"); ready != "ok\n" {
		t.Errorf("ready: %q", ready)
	}
	if printed := server.Printed(); strings.Contains(printed, "here") || strings.Contains(printed, "left") {
		t.Error("the text of a note is in the log")
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// metricName matches the names of metrics in a query.
var metricName = regexp.MustCompile(`\b(routeguide|rpc|go|process)_[a-z_]+`)

// checkDashboard fails the test unless the Grafana dashboard parses, and uses only existing metrics.
func checkDashboard(t *testing.T, metrics string) {
	t.Helper()
	text, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	labels := regexp.MustCompile(`\{[^}]*\}|by \([^)]*\)`)
	count := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			for _, name := range metricName.FindAllString(labels.ReplaceAllString(target.Expr, ""), -1) {
				count++
				if !strings.Contains(metrics, "\n"+name+"{") && !strings.Contains(metrics, "\n"+name+" ") {
					t.Errorf("%s: no metric %s", panel.Title, name)
				}
			}
		}
	}
	if count < 8 {
		t.Errorf("the dashboard uses %d metrics, want at least 8", count)
	}
}
