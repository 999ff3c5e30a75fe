package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
)

type chatFlags struct {
	At     place  `required:"" placeholder:"LAT,LNG" help:"Place of the chat, in degrees: 40.7127,-74.0059; south and west are negative."`
	Newest *int32 `placeholder:"N" help:"Begin with the newest N notes of the place, 0 to 1000 (20)."`

	callFlags `embed:""`
}

// maxUnsent is the number of notes that can be typed while there is no connection.
const maxUnsent = 1000

func (f *chatFlags) run(ctx context.Context, stdin *os.File, stdout, stderr io.Writer) error {
	if err := checkNewest(f.Newest); err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	console, err := openConsole(stdin, stdout, stderr)
	if err != nil {
		return err
	}
	defer console.Close()
	chat := &chat{
		client:  client,
		console: console,
		request: &routeguidev1.FollowNotesRequest{
			Filter: &routeguidev1.FollowNotesRequest_Location{Location: f.At.point()},
			Newest: f.Newest,
		},
		typed: make(chan string, maxUnsent),
		own:   map[string]bool{},
	}
	return chat.run(ctx)
}

// A chat leaves the lines of a console as notes, and shows the notes of others.
type chat struct {
	client  *routechat.Client
	console console
	request *routeguidev1.FollowNotesRequest

	typed  chan string  // notes to be left; closed after the last one
	unsent atomic.Int64 // number of notes that have been typed, and not left

	mu  sync.Mutex
	own map[string]bool // ids of notes that are left and not yet heard; guarded by mu
}

// run returns after the last line was left, when ctx ends, or when the notes cannot be followed.
func (c *chat) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	followCtx, stopFollowing := context.WithCancel(ctx)
	var following sync.WaitGroup
	var unfollowed error
	following.Go(func() {
		if err := c.follow(followCtx); followCtx.Err() == nil {
			unfollowed = err
			cancel()
		}
	})
	// Nobody waits for this goroutine, since a read of stdin cannot be interrupted. It ends with stdin, or with the process.
	go func() {
		defer close(c.typed)
		c.read(ctx)
		c.console.End(c.unsent.Load())
	}()
	refused := c.leaveTyped(ctx)
	stopFollowing()
	following.Wait()
	if unfollowed != nil {
		return unfollowed
	}
	if unsent := c.unsent.Load(); unsent > 0 {
		return fmt.Errorf("%d of the notes that were typed may not have been left", unsent)
	}
	return refused
}

// read reads lines until the last one.
func (c *chat) read(ctx context.Context) {
	for {
		text, err := c.console.ReadLine()
		if err != nil {
			return
		}
		if text == "" {
			continue
		}
		c.unsent.Add(1)
		select {
		case c.typed <- text:
		case <-ctx.Done():
			return
		}
	}
}

// leaveTyped leaves each note in turn, until the last one or until ctx ends. It returns the first error of a note that was refused.
func (c *chat) leaveTyped(ctx context.Context) error {
	var refused error
	for {
		var text string
		var more bool
		select {
		case text, more = <-c.typed:
		case <-ctx.Done():
		}
		if !more {
			return refused
		}
		id := rand.Text()
		c.mu.Lock()
		c.own[id] = true
		c.mu.Unlock()
		_, err := c.client.LeaveWithID(ctx, &routeguide.RouteNote{Location: c.request.GetLocation(), Message: text}, id)
		if ctx.Err() != nil {
			return refused
		}
		c.unsent.Add(-1)
		if err != nil {
			err = fmt.Errorf("not left: %s: %w", line(text), err)
			c.console.Say(err.Error())
			if refused == nil {
				refused = err
			}
		}
	}
}

// follow shows the notes of others.
func (c *chat) follow(ctx context.Context) error {
	connection := connection{report: c.console.Say}
	begun := c.request.Newest != nil && c.request.GetNewest() == 0 // Nothing is said of notes that were not asked for.
	for event, err := range c.client.Follow(ctx, c.request) {
		if err != nil {
			return err
		}
		connection.observe(event)
		if event.Current && !begun {
			c.console.Say("nobody has left a note here yet")
		}
		begun = begun || event.Current || len(event.Notes) > 0
		for _, note := range event.Notes {
			if c.isOwn(note) {
				continue // It is where it was typed.
			}
			if _, err := fmt.Fprintf(c.console, "%s %s\n", clock(leaveTime(note)), line(note.GetText())); err != nil {
				return err
			}
		}
	}
	return nil
}

// isOwn returns whether a note was typed here, once for each.
func (c *chat) isOwn(note *routeguidev1.Note) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.own[note.GetId()]
	delete(c.own, note.GetId())
	return own
}

// clock returns a time in minutes, without the date if it is today.
func clock(at time.Time) string {
	if at.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return at.Format("15:04")
	}
	return at.Format("2006-01-02 15:04")
}
