package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/command"
)

type leaveFlags struct {
	Text    string        `arg:"" help:"Text of the note."`
	At      place         `required:"" placeholder:"LAT,LNG" help:"Place of the note, in degrees: 40.7127,-74.0059; south and west are negative."`
	Timeout time.Duration `default:"1m" placeholder:"DURATION" help:"Retry for this long if there is no connection, or the server takes no notes (${default}). The note is left once, but after a failure it may have been left."`
	JSON    bool          `help:"Print the note as JSON, in one line."`

	callFlags `embed:""`
}

func (f *leaveFlags) run(ctx context.Context, stdout io.Writer) error {
	if f.Timeout <= 0 {
		return command.Usagef("--timeout %v: want a duration above 0", f.Timeout)
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return within(ctx, f.Timeout, func(ctx context.Context) error {
		note, err := client.Leave(ctx, &routeguide.RouteNote{
			Location: f.At.point(),
			Message:  f.Text,
		})
		if err != nil {
			return err
		}
		return f.print(stdout, note)
	})
}

func (f *leaveFlags) print(stdout io.Writer, note *routeguidev1.Note) error {
	if !f.JSON {
		_, err := fmt.Fprintf(stdout, "Left at %v: position %d, time %s\n", &f.At, note.GetPosition(), note.GetLeaveTime().AsTime().Format(time.RFC3339Nano))
		return err
	}
	line, err := noteJSON(note)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, line)
	return err
}

// noteJSON returns a note as JSON in one line.
func noteJSON(note *routeguidev1.Note) (string, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(note)
	if err != nil {
		return "", err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil { // protojson puts spaces at random.
		return "", err
	}
	return line.String(), nil
}
