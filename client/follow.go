package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"example.com/routeguide/client/routechat"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/command"
)

type followFlags struct {
	At     *place `xor:"filter" placeholder:"LAT,LNG" help:"Follow this place, in degrees: 40.7127,-74.0059; south and west are negative."`
	Within *area  `xor:"filter" placeholder:"LAT,LNG,LAT,LNG" help:"Follow all places in the rectangle with these opposite corners."`
	Newest *int32 `placeholder:"N" help:"Begin with the newest N notes of each place, 0 to 1000 (20, or 1 with --within)."`
	JSON   bool   `help:"Print each note as JSON, in one line."`

	callFlags `embed:""`
}

func (f *followFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	if f.At == nil && f.Within == nil {
		return command.Usagef("--at or --within is missing")
	}
	if err := checkNewest(f.Newest); err != nil {
		return err
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	request := &routeguidev1.FollowNotesRequest{Newest: f.Newest}
	if f.At != nil {
		request.Filter = &routeguidev1.FollowNotesRequest_Location{Location: f.At.point()}
	} else {
		request.Filter = &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: f.Within.rectangle()}
	}
	connection := connection{report: func(text string) { say(stderr, text) }}
	for event, err := range client.Follow(ctx, request) {
		if ctx.Err() != nil {
			return nil // A signal is how it is meant to end.
		}
		if err != nil {
			return err
		}
		connection.observe(event)
		for _, note := range event.Notes {
			if err := f.print(stdout, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxNewest is the largest number of notes of a place that the contract lets a client begin with.
const maxNewest = 1000

func checkNewest(newest *int32) error {
	if newest != nil && (*newest < 0 || *newest > maxNewest) {
		return command.Usagef("--newest %d: want a number from 0 to %d", *newest, maxNewest)
	}
	return nil
}

func (f *followFlags) print(stdout io.Writer, note *routeguidev1.Note) error {
	if f.JSON {
		text, err := noteJSON(note)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, text)
		return err
	}
	at := place{note.GetLocation().GetLatitude(), note.GetLocation().GetLongitude()}
	_, err := fmt.Fprintf(stdout, "%s %v %s\n", leaveTime(note).Format(time.DateTime), &at, line(note.GetText()))
	return err
}

// leaveTime returns the time of a note on the user's clock.
func leaveTime(note *routeguidev1.Note) time.Time {
	return note.GetLeaveTime().AsTime().Local() //nolint:gosmopolitan // It is for the user.
}

// A connection says what happens to the connection while notes are followed.
type connection struct {
	report func(text string)
	failed string // what was said last about a connection that is lost; empty if it is not
}

// observe takes each event in turn. An outage is reported once for each of its errors, and not at each attempt.
func (c *connection) observe(event routechat.Event) {
	if event.Lost != nil {
		text := "not connected, trying again: " + line(event.Lost.Error())
		if text != c.failed {
			c.report(text)
		}
		c.failed = text
	}
	if event.Reset {
		c.report("the server cannot continue where it was: the newest notes come again, and others may be missing")
	}
	if event.Current && c.failed != "" {
		c.failed = ""
		c.report("connected again")
	}
}
