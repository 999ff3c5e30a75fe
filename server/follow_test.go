package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/measure"
)

const followPath = "/routeguide.v1.NoteService/FollowNotes"

func followLocation(longitude int32) *routeguidev1.FollowNotesRequest {
	return &routeguidev1.FollowNotesRequest{Filter: &routeguidev1.FollowNotesRequest_Location{Location: &routeguide.Point{Longitude: longitude}}}
}

func followWorld() *routeguidev1.FollowNotesRequest {
	return &routeguidev1.FollowNotesRequest{Newest: proto.Int32(0), Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: &routeguide.Rectangle{
		Lo: &routeguide.Point{Latitude: -900000000, Longitude: -1800000000}, Hi: &routeguide.Point{Latitude: 900000000, Longitude: 1800000000},
	}}}
}

func dialClient(t *testing.T, config routechat.Config, url string, options ...connect.ClientOption) *routechat.Client {
	t.Helper()
	client, err := config.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// hear follows until it has heard a text, and returns all texts.
func hear(ctx context.Context, client *routechat.Client, request *routeguidev1.FollowNotesRequest, current func(), last string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.FollowNotes(ctx, request)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var texts []string
	for stream.Receive() {
		if stream.Msg().GetCurrent() {
			current()
		}
		for _, note := range stream.Msg().GetNotes() {
			texts = append(texts, note.GetText())
		}
		if slices.Contains(texts, last) {
			return texts, nil
		}
	}
	return texts, errors.Join(errors.New("the call has ended"), stream.Err())
}

func TestTokensGuardFollowNotes(t *testing.T) {
	const token = "0123456789abcdef"
	file := t.TempDir() + "/tokens"
	write(t, file, token+"\n")
	url, stop := start(t, "--tokens", file)
	for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		for _, wrong := range []string{"", "0123456789abcdeX"} {
			client := dialClient(t, routechat.Config{Token: wrong}, url, option)
			for _, request := range []*routeguidev1.FollowNotesRequest{followLocation(1), followWorld()} {
				_, err := hear(t.Context(), client, request, func() { t.Error("current without a token") }, "nothing")
				if connect.CodeOf(errors.Unwrap(err)) != connect.CodeUnauthenticated && connect.CodeOf(err) != connect.CodeUnauthenticated {
					t.Errorf("with the token %q: got %v", wrong, err)
				}
			}
			client.Close()
		}
		client := dialClient(t, routechat.Config{Token: token}, url, option)
		if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 1}, Message: "hello"}); err != nil {
			t.Error(err)
		}
		if _, err := hear(t.Context(), client, followLocation(1), func() {}, "hello"); err != nil {
			t.Error(err)
		}
		client.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// gauge returns the value of a metric of a server.
func gauge(t *testing.T, admin, name string) int {
	t.Helper()
	match := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(get(t, "http://"+admin+"/metrics"))
	if match == nil {
		t.Fatalf("no metric %s", name)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(value)
}

// startWithAdmin starts a server process, and returns its admin address, too.
func startWithAdmin(t *testing.T, args ...string) (stop func() error, memory func() int64, url, admin string) {
	t.Helper()
	server, url := startProcess(t, append([]string{"--store", "memory:", "--admin", "127.0.0.1:0"}, args...)...)
	match, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	memory = func() int64 {
		peak, err := measure.Memory(server.PID(), "VmHWM")
		if err != nil {
			t.Fatal(err)
		}
		return peak
	}
	return server.Stop, memory, url, match[1]
}

// awaitPong reads until a PING was answered.
func (h *hostile) awaitPong() error {
	for {
		frame, err := h.ReadFrame()
		if err != nil {
			return err
		}
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			return nil
		}
	}
}

// stalledFollowers opens calls that follow, and never reads: FollowNotes of a location and of the world, and chats. It returns once the
// server has all of them.
func stalledFollowers(t *testing.T, address, admin string, connections, each int) {
	t.Helper()
	for range connections {
		h, err := dialHostile(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		for i := range each {
			stream := uint32(2*i + 1)
			request := []proto.Message{followLocation(1), followWorld(), &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 1}, Message: "of a stalled chat"}}[i%3]
			if i%3 == 2 {
				err = h.open(stream, chatPath, hpack.HeaderField{Name: "routeguide-follow", Value: "true"})
			} else {
				err = h.open(stream, followPath)
			}
			if err := errors.Join(err, h.WriteData(stream, i%3 < 2, encodeEnvelope(t, request))); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the stalled followers are there", func() bool { return gauge(t, admin, "routeguide_followers") >= connections*each })
}

// While followers take nothing, 64 MiB of notes are left: others hear all of them in order, in bounded memory, and the stalled ones are
// reset and counted.
func TestStalledFollowersHarmNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const connections, each, readers, writers, notes = 10, 99, 10, 8, 1000
	stop, memory, url, admin := startWithAdmin(t, "--stall-timeout", "5s")
	stalledFollowers(t, strings.TrimPrefix(url, "http://"), admin, connections, each)
	var current, hearing, writing sync.WaitGroup
	heard := make([][]string, readers)
	for i := range readers {
		request := []*routeguidev1.FollowNotesRequest{followLocation(1), followWorld()}[i%2]
		options := []connect.ClientOption{connect.WithGRPC(), connect.WithClientOptions()}[i%3/2]
		client := dialClient(t, routechat.Config{}, url, options)
		current.Add(1)
		ready := sync.OnceFunc(current.Done)
		hearing.Go(func() {
			defer ready()
			var err error
			if heard[i], err = hear(t.Context(), client, request, ready, "the last one"); err != nil {
				t.Errorf("reader %d: %v", i, err)
			}
		})
	}
	current.Wait()
	text := strings.Repeat("x", 8<<10)
	for writer := range writers {
		client := dialClient(t, routechat.Config{}, url)
		writing.Go(func() {
			for i := range notes {
				request := &routeguidev1.LeaveNoteRequest{Location: &routeguide.Point{Longitude: 1}, Text: fmt.Sprintf("%d %d %s", writer, i, text)}
				if _, err := client.LeaveNote(t.Context(), request); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	client := dialClient(t, routechat.Config{}, url)
	if _, err := client.LeaveNote(t.Context(), &routeguidev1.LeaveNoteRequest{Location: &routeguide.Point{Longitude: 1}, Text: "the last one"}); err != nil {
		t.Fatal(err)
	}
	hearing.Wait()
	for i, texts := range heard {
		next := make(map[string]int)
		for _, text := range texts {
			writer, rest, _ := strings.Cut(text, " ")
			number, _, ok := strings.Cut(rest, " ")
			if !ok || len(text) < 8<<10 {
				continue // It is of a stalled chat, or the last one.
			}
			if number == fmt.Sprint(next[writer]) {
				next[writer]++
			}
		}
		for writer := range writers {
			if got := next[fmt.Sprint(writer)]; got != notes {
				t.Errorf("reader %d heard %d notes of writer %d in order, want %d", i, got, writer, notes)
			}
		}
	}
	eventuallyWithin(t, time.Minute, "the stalled followers are reset", func() bool {
		return gauge(t, admin, "routeguide_followers") == 0
	})
	if stalled := gauge(t, admin, "routeguide_calls_stalled_total"); stalled != connections*each {
		t.Errorf("%d stalled calls are counted, want %d", stalled, connections*each)
	}
	if peak := memory(); peak > maxMemoryMiB<<20 {
		t.Errorf("peak memory %d MiB, want at most %d", peak>>20, maxMemoryMiB)
	} else {
		t.Logf("peak memory %d MiB", peak>>20)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Followers of locations, of the world and of nothing that are canceled at any moment leave neither a follower nor a goroutine.
func TestFollowersThatCancelAtRandomLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const connections, each = 10, 1000
	stop, memory, url, admin := startWithAdmin(t)
	address := strings.TrimPrefix(url, "http://")
	before := gauge(t, admin, "go_goroutines")
	ctx, cancel := context.WithCancel(t.Context())
	neighbour := make(chan error, 1)
	go func() { // It leaves notes meanwhile.
		_, err := wellBehavedChat(ctx, url)
		neighbour <- err
	}()
	var work sync.WaitGroup
	for connection := range connections {
		h, err := dialHostile(address)
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() { // The server has had all of it before the connection is closed, which ends the rest.
			if err := h.awaitPong(); err != nil {
				t.Error(err)
			}
			_ = h.Close()
		})
		work.Go(func() {
			random := rand.New(rand.NewPCG(uint64(connection), 1))
			var open []uint32
			for i := range each {
				stream := uint32(2*i + 1)
				var err error
				switch random.IntN(4) {
				case 0:
					err = errors.Join(h.open(stream, followPath), h.WriteData(stream, true, encodeEnvelope(t, followLocation(random.Int32N(100)))))
				case 1:
					err = errors.Join(h.open(stream, followPath), h.WriteData(stream, true, encodeEnvelope(t, followWorld())))
				case 2:
					err = h.open(stream, followPath) // Its request never comes.
				default:
					err = h.open(stream, chatPath, hpack.HeaderField{Name: "routeguide-follow", Value: "true"})
					for range random.IntN(3) {
						err = errors.Join(err, h.sendNote(stream, random.Int32N(100), "hello"))
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				open = append(open, stream)
				for len(open) > 0 && random.IntN(2) == 0 {
					at := random.IntN(len(open))
					if err := h.WriteRSTStream(open[at], http2.ErrCodeCancel); err != nil {
						t.Error(err)
						return
					}
					open = slices.Delete(open, at, at+1)
				}
			}
			if err := h.WritePing(false, [8]byte{1}); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	cancel()
	if err := <-neighbour; err != nil {
		t.Errorf("the well-behaved chat: %v", err)
	}
	eventuallyWithin(t, time.Minute, "the followers are gone", func() bool {
		return gauge(t, admin, "routeguide_followers") == 0 && gauge(t, admin, "routeguide_chats") == 0 && gauge(t, admin, "routeguide_calls") == 0
	})
	eventuallyWithin(t, time.Minute, "the goroutines have ended", func() bool { return gauge(t, admin, "go_goroutines") <= before+10 })
	if peak := memory(); peak > maxMemoryMiB<<20 {
		t.Errorf("peak memory %d MiB, want at most %d", peak>>20, maxMemoryMiB)
	}
	if delivered := gauge(t, admin, "routeguide_notes_delivered_total"); delivered < connections*each {
		t.Errorf("only %d notes were delivered to followers", delivered)
	} else {
		t.Logf("%d notes were delivered to followers", delivered)
	}
	if panics := gauge(t, admin, "routeguide_panics_total"); panics != 0 {
		t.Errorf("%d calls have panicked", panics)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
