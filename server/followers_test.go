package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/notes"
)

// snapshotSize is the largest number of notes that FollowNotes starts with.
const snapshotSize = 1000

// lastText is the text of the last note at each location.
const lastText = "last"

// A crowd is clients that leave notes at a few locations, and others that follow these, while servers fail. Its check is the order
// checker: each follower has received the log of each location that it follows, from its start on: in order, without a gap and, unless it
// follows a rectangle, nothing twice.
type crowd struct {
	urls      []string // of servers of one store; clients go to the next one after an error
	locations []*routeguide.Point
	padding   string        // of texts
	pause     time.Duration // of a client after each note

	ctx       context.Context //nolint:containedctx // The context of all calls.
	cancel    context.CancelFunc
	begun     bool        // notes are being left
	ended     atomic.Bool // no more notes are begun
	running   sync.WaitGroup
	writing   sync.WaitGroup
	retried   atomic.Int64 // calls of LeaveNote
	listeners []*listener
	chatters  []*chatter

	mu   sync.Mutex // guards left
	left []leftNote // notes with an answer, in the order of the answers
}

type leftNote struct {
	location notes.Location
	text     string
}

func newCrowd(t *testing.T, urls ...string) *crowd {
	t.Helper()
	crowd := &crowd{urls: urls}
	for i := range int32(5) {
		crowd.locations = append(crowd.locations, &routeguide.Point{Latitude: 10 * i, Longitude: 10 * i})
	}
	crowd.ctx, crowd.cancel = context.WithCancel(context.Background())
	t.Cleanup(func() {
		crowd.ended.Store(true)
		crowd.cancel()
		crowd.writing.Wait()
		crowd.running.Wait()
	})
	return crowd
}

func locationOf(point *routeguide.Point) notes.Location {
	return notes.Location{Latitude: point.GetLatitude(), Longitude: point.GetLongitude()}
}

// start starts followers of each kind, then clients that leave notes, and waits until all have begun.
func (c *crowd) start(t *testing.T) {
	t.Helper()
	c.follow(t, snapshotSize, c.locations[0], connect.WithGRPC())
	c.follow(t, snapshotSize, c.locations[1], connect.WithGRPCWeb())
	c.follow(t, snapshotSize, c.locations[2], connect.WithProtoJSON())
	c.follow(t, snapshotSize, everywhere, connect.WithGRPC())
	c.follow(t, snapshotSize, &routeguide.Rectangle{Lo: c.locations[1], Hi: c.locations[2]}, nil) // over HTTP/1.1
	c.chat(t, c.locations[0])
	for _, listener := range c.listeners {
		eventuallyWithin(t, faultTimeout, "a follower is current", listener.isCurrent)
	}
	c.leaveNotes(t, 4)
	c.progress(t, 20)
}

// leaveNotes starts clients that leave notes.
func (c *crowd) leaveNotes(t *testing.T, count int) {
	t.Helper()
	c.begun = true
	for i := range count {
		c.writing.Go(func() { c.write(t, i) })
	}
}

// everywhere is a rectangle around all locations.
var everywhere = &routeguide.Rectangle{Lo: &routeguide.Point{Latitude: -1, Longitude: -1}, Hi: &routeguide.Point{Latitude: 1000, Longitude: 1000}}

// faultTimeout is far longer than anything takes, so that only a hang, or a note that is lost, reaches it.
const faultTimeout = 60 * time.Second

// progress waits until every follower has received a number of further notes.
func (c *crowd) progress(t *testing.T, count int) {
	t.Helper()
	for _, listener := range c.listeners {
		before := listener.received()
		eventuallyWithin(t, faultTimeout, listener.name+" receives notes", func() bool { return listener.received() >= before+count })
	}
}

// write leaves notes at all locations in turn, until no more are to be begun.
func (c *crowd) write(t *testing.T, writer int) {
	var clients []routeguidev1connect.NoteServiceClient
	for i := range c.urls {
		client, end := c.client(t, i+writer, connect.WithGRPC())
		defer end()
		clients = append(clients, client)
	}
	for number := 0; !c.ended.Load(); number++ {
		c.leave(t, clients, c.locations[number%len(c.locations)], fmt.Sprintf("w%d-%06d%s", writer, number, c.padding))
		time.Sleep(c.pause)
	}
}

// leave leaves a note, whose id is its text, and repeats the call until it is answered, at the next server if there is one.
func (c *crowd) leave(t *testing.T, clients []routeguidev1connect.NoteServiceClient, location *routeguide.Point, text string) {
	short, _, _ := strings.Cut(text, " ")
	for attempt := 0; ; attempt++ {
		response, err := clients[attempt%len(clients)].LeaveNote(c.ctx, &routeguidev1.LeaveNoteRequest{Location: location, Text: text, Id: short})
		switch code := connect.CodeOf(err); {
		case err == nil:
			if response.GetNote().GetText() != text {
				t.Errorf("the answer to %s is %v", short, response)
			}
			c.mu.Lock()
			c.left = append(c.left, leftNote{locationOf(location), short})
			c.mu.Unlock()
			return
		case c.ctx.Err() != nil:
			return
		case code != connect.CodeUnavailable && code != connect.CodeUnknown && code != connect.CodeCanceled && code != connect.CodeInternal:
			t.Errorf("LeaveNote: %v", err)
		}
		c.retried.Add(1)
		backoff()
	}
}

// backoff waits before a retry.
func backoff() {
	time.Sleep(rand.N(50 * time.Millisecond))
}

// client returns a client of a server, by its number modulo their count. Without a protocol, it uses HTTP/1.1.
func (c *crowd) client(t *testing.T, server int, protocol connect.ClientOption) (client routeguidev1connect.NoteServiceClient, end func()) {
	url := c.urls[server%len(c.urls)]
	if protocol == nil {
		transport := &http.Transport{}
		return routeguidev1connect.NewNoteServiceClient(&http.Client{Transport: transport}, url), transport.CloseIdleConnections
	}
	dialled, err := routechat.New(url, protocol)
	if err != nil {
		t.Error(err)
		return nil, func() {}
	}
	return dialled, dialled.Close
}

// finish ends the clients: those that follow once they have received the last note of each location.
func (c *crowd) finish(t *testing.T) {
	t.Helper()
	c.ended.Store(true)
	c.writing.Wait()
	client, end := c.client(t, 0, connect.WithGRPC())
	defer end()
	for _, location := range c.locations {
		c.leave(t, []routeguidev1connect.NoteServiceClient{client}, location, lastText)
	}
	for _, listener := range c.listeners {
		eventuallyWithin(t, faultTimeout, listener.name+" receives the last note of each location", listener.hasAll)
	}
	for _, chatter := range c.chatters {
		eventuallyWithin(t, faultTimeout, "a chat receives the last note of its location", chatter.hasAll)
	}
	c.cancel()
	c.running.Wait()
}

// read returns the texts of the whole logs, which it reads with RouteChat and with a snapshot.
func (c *crowd) read(t *testing.T) map[notes.Location][]string {
	t.Helper()
	logs := make(map[notes.Location][]string)
	for _, point := range c.locations {
		newest := c.snapshot(t, point)
		log := readLog(t, c.urls[0], point)
		if tail := log[max(0, len(log)-snapshotSize):]; !slices.Equal(newest, tail) {
			t.Errorf("at %v, the snapshot is %d notes to %v, and the log's last ones are %d to %v", point, len(newest), newest[max(0, len(newest)-3):], len(tail), tail[max(0, len(tail)-3):])
		}
		logs[locationOf(point)] = log
	}
	return logs
}

// snapshot returns the texts of the newest notes at a location.
func (c *crowd) snapshot(t *testing.T, location *routeguide.Point) (texts []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client, end := c.client(t, 0, connect.WithGRPC())
	defer end()
	newest := int32(snapshotSize)
	stream, err := client.FollowNotes(ctx, &routeguidev1.FollowNotesRequest{Filter: &routeguidev1.FollowNotesRequest_Location{Location: location}, Newest: &newest})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = stream.Close()
	}()
	for stream.Receive() {
		for _, note := range stream.Msg().GetNotes() {
			text, _, _ := strings.Cut(note.GetText(), " ")
			texts = append(texts, text)
		}
		if stream.Msg().GetCurrent() {
			return texts
		}
	}
	t.Fatal(errors.Join(errors.New("a snapshot ended"), stream.Err()))
	return nil
}

// checkLeft checks that the logs have each note that was left once, and those of one client in order.
func (c *crowd) checkLeft(t *testing.T, logs map[notes.Location][]string) {
	t.Helper()
	counts := make(map[leftNote]int)
	for location, log := range logs {
		last := make(map[string]string) // by writer
		for _, text := range log {
			counts[leftNote{location, text}]++
			if name, _, _ := strings.Cut(text, "-"); name != "chat" {
				if text <= last[name] {
					t.Errorf("%s comes after %s", text, last[name])
				}
				last[name] = text
			}
		}
	}
	for _, note := range c.left {
		if counts[note] != 1 {
			t.Errorf("%s was left, and is in the log %d times", note.text, counts[note])
		}
		delete(counts, note)
	}
	for note := range counts {
		if !strings.HasPrefix(note.text, "chat-") {
			t.Errorf("%s is in the log, and was not answered", note.text)
		}
	}
}

// conclude adds a follower late, ends the crowd, checks it, and stops the servers.
func (c *crowd) conclude(t *testing.T, servers ...*faultServer) (total counts) {
	t.Helper()
	c.follow(t, 20, c.locations[3], connect.WithGRPC())
	c.progress(t, 20)
	c.finish(t)
	total = c.check(t, c.read(t))
	for _, server := range servers {
		server.stop(t)
	}
	return total
}

// check compares what was received with the logs, and returns the counts, which it also logs.
func (c *crowd) check(t *testing.T, logs map[notes.Location][]string) (total counts) {
	t.Helper()
	c.checkLeft(t, logs)
	for _, listener := range c.listeners {
		total.calls += listener.calls
		if listener.request.GetRectangle() != nil {
			total.repeated += listener.repeated
		} else if total.doubled += listener.repeated; listener.repeated > 0 {
			t.Errorf("%s: %d notes came twice", listener.name, listener.repeated)
		}
		total.resets += len(listener.segments) - 1
		for i, segment := range listener.segments {
			for location, log := range logs {
				if !listener.follows(location) {
					continue
				}
				var texts []string
				if received := segment[location]; received != nil {
					texts = received.texts
				}
				to := len(log)
				if i < len(listener.segments)-1 {
					to = -1 // It was reset.
				}
				total.compare(t, fmt.Sprintf("%s at %v, after %d resets", listener.name, location, i), texts, log, listener.fromStart && i == 0, to)
			}
		}
	}
	for _, chatter := range c.chatters {
		for i, texts := range chatter.sessions {
			total.calls++
			total.compare(t, fmt.Sprintf("RouteChat %d", i), texts, logs[chatter.location], true, -1)
		}
	}
	t.Logf("%d notes left, %d calls of LeaveNote repeated; %d calls that follow: %d notes delivered, lost %d, doubled %d, out of order %d; of rectangles repeated %d; %d resets",
		len(c.left), c.retried.Load(), total.calls, total.delivered, total.lost, total.doubled, total.disordered, total.repeated, total.resets)
	return total
}

// counts are numbers of notes, of calls and of resets.
type counts struct {
	delivered, lost, doubled, disordered, repeated, calls, resets int
}

// compare checks that texts are a part of a log without gaps: from its first note, if fromStart, and up to its end, if to is not negative.
func (c *counts) compare(t *testing.T, who string, texts, log []string, fromStart bool, to int) {
	t.Helper()
	c.delivered += len(texts)
	from := 0
	if !fromStart && len(texts) > 0 {
		from = max(0, slices.Index(log, texts[0]))
	}
	if to < 0 {
		to = from
		if len(texts) > 0 {
			to = slices.Index(log, texts[len(texts)-1]) + 1
		}
	}
	if !fromStart && len(texts) == 0 {
		return
	}
	want := log[from:max(from, to)]
	if slices.Equal(texts, want) {
		return
	}
	seen := make(map[string]int)
	for _, text := range texts {
		seen[text]++
	}
	lost, doubled := 0, len(texts)-len(seen)
	for _, text := range want {
		if seen[text] == 0 {
			lost++
		}
	}
	c.lost += lost
	c.doubled += doubled
	if lost+doubled == 0 {
		c.disordered++
	}
	at := 0
	for at < len(texts) && at < len(want) && texts[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d notes instead of %d, lost %d, doubled %d; first difference at %d: %v instead of %v", who, len(texts), len(want), lost, doubled, at,
		texts[at:min(len(texts), at+3)], want[at:min(len(want), at+3)])
}
