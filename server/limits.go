package main

import (
	"context"
	"math"
	"time"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
)

// limitFlags bound what clients may use. The defaults suit a server on the open internet, on a machine with a few
// gigabytes of memory. docs/limits.md lists every limit with its code. Limits that users rarely need to change are hidden
// from --help.
type limitFlags struct {
	MaxText         byteSize      `default:"64KiB" placeholder:"BYTES" help:"Largest text of a note (${default}); all of a note may be 1 KiB larger."`
	MaxMessage      byteSize      `default:"512KiB" placeholder:"BYTES" help:"Largest request message, uncompressed (${default})."`
	MaxHeader       byteSize      `hidden:"" default:"64KiB" placeholder:"BYTES" help:"Largest request header (${default})."`
	MaxConnections  int           `default:"10000" placeholder:"N" help:"Maximum number of open connections (${default}). Further ones wait. 0 is no limit."`
	MaxStreams      int           `hidden:"" default:"1000" placeholder:"N" help:"Maximum number of open calls of a connection (${default})."`
	MaxChats        int           `default:"100000" placeholder:"N" help:"Maximum number of open chats (${default}). Further ones get RESOURCE_EXHAUSTED. 0 is no limit."`
	MaxFollowers    int           `default:"100000" placeholder:"N" help:"Maximum number of open calls of FollowNotes (${default}). Further ones get RESOURCE_EXHAUSTED. 0 is no limit."`
	MaxSnapshot     int           `default:"20000" placeholder:"N" help:"Maximum number of locations whose notes FollowNotes of a rectangle starts with (${default}). Larger rectangles get RESOURCE_EXHAUSTED. 0 is no limit."`
	MaxCalls        int           `default:"5000" placeholder:"N" help:"Maximum number of open calls other than chats and FollowNotes (${default}), and as many health checks. Further ones get RESOURCE_EXHAUSTED. 0 is no limit."`
	MaxArriving     byteSize      `hidden:"" default:"64MiB" placeholder:"BYTES" help:"Maximum size of notes larger than 4 KiB that have arrived in part, or are in a call of LeaveNote (${default}). 0 is no limit."`
	MaxUnread       byteSize      `hidden:"" default:"256MiB" placeholder:"BYTES" help:"Maximum size of request data that has arrived and was not read, because notes wait for their replies or for the rate (${default}). Beyond it, calls that send more are reset."`
	ClientShare     float64       `default:"-1" placeholder:"PERCENT" help:"Share of the connections, chats, followers and calls that one client may use, in percent; 100 is no limit. By default 10, or 100 if only this machine can call."`
	MaxPending      int           `default:"262144" placeholder:"N" help:"Maximum number of notes of a chat that wait for their replies (${default}). Beyond it the server stops reading the chat."`
	MaxPendingInAll int           `hidden:"" name:"max-pending-in-all" default:"4194304" placeholder:"N" help:"Maximum number of notes of all chats that wait for their replies (${default}, 192 MiB). 0 is no limit."`
	NoteRate        float64       `default:"-1" placeholder:"N" help:"Maximum number of notes of a client per second, with a burst of ten seconds' worth. Beyond it chats are read more slowly, and LeaveNote gets RESOURCE_EXHAUSTED. 0 is no limit. By default 1000, or no limit if only this machine can call."`
	StallTimeout    time.Duration `default:"1m" placeholder:"DURATION" help:"Reset a slow consumer: a call whose client reads less than 32 KiB of the response, or less than all that is pending, within this time (${default}). 0 is never."`
	RequestTimeout  time.Duration `default:"30s" placeholder:"DURATION" help:"Time for a request, or a note of a chat, to arrive once it has begun to (${default}). 0 is no limit."`
	IdleTimeout     time.Duration `default:"5m" placeholder:"DURATION" help:"Close a connection that has had no call for this long (${default})."`
	MaxChatAge      time.Duration `renamed:"chat-life" default:"0s" placeholder:"DURATION" help:"End a chat, or a call of FollowNotes, of this age with UNAVAILABLE, once it has its replies. 0, the default, is never."`
}

// defaultClientShare is the share of one client in percent, on a server that other machines can call: it takes several addresses to
// keep others out.
const defaultClientShare = 10

// defaultNoteRate is the notes per second of one client, on a server that other machines can call.
const defaultNoteRate = 1000

// maxNoteRate is the largest --note-rate that the token bucket can count.
const maxNoteRate = 1e8

func (f *limitFlags) check() error {
	if f.NoteRate != -1 && (f.NoteRate < 0 || f.NoteRate > maxNoteRate || math.IsNaN(f.NoteRate)) {
		return command.Usagef("--note-rate %g: want a number of notes up to %g, or 0 for no bound", f.NoteRate, maxNoteRate)
	}
	if f.ClientShare != -1 && !(f.ClientShare > 0 && f.ClientShare <= 100) {
		return command.Usagef("--client-share %g: want a percentage, above 0 and up to 100", f.ClientShare)
	}
	for _, limit := range f.limits() {
		if limit.value < limit.min {
			return command.Usagef("--%s: want %d or more", limit.flag, limit.min)
		}
	}
	return nil
}

// limit is a limit of what clients may use.
type limit struct {
	flag  string
	value int64
	min   int64  // smallest value; if it is 0, 0 is no limit
	code  string // of a call that exceeds the limit; empty if there is backpressure, or the connection is closed
}

// limits are the limits that are plain numbers. docs/limits.md has all.
func (f *limitFlags) limits() []limit {
	return []limit{
		{"max-text", int64(f.MaxText), 0, "INVALID_ARGUMENT"},
		{"max-message", int64(f.MaxMessage), 1, "RESOURCE_EXHAUSTED"},
		{"max-header", int64(f.MaxHeader), 1, ""},
		{"max-connections", int64(f.MaxConnections), 0, ""},
		{"max-streams", int64(f.MaxStreams), 1, ""},
		{"max-chats", int64(f.MaxChats), 0, "RESOURCE_EXHAUSTED"},
		{"max-followers", int64(f.MaxFollowers), 0, "RESOURCE_EXHAUSTED"},
		{"max-snapshot", int64(f.MaxSnapshot), 0, "RESOURCE_EXHAUSTED"},
		{"max-calls", int64(f.MaxCalls), 0, "RESOURCE_EXHAUSTED"},
		{"max-arriving", int64(f.MaxArriving), 0, "RESOURCE_EXHAUSTED"},
		{"max-unread", int64(f.MaxUnread), 1, "RESOURCE_EXHAUSTED"},
		{"max-pending", int64(f.MaxPending), 1, ""},
		{"max-pending-in-all", int64(f.MaxPendingInAll), 0, "RESOURCE_EXHAUSTED"},
		{"stall-timeout", int64(f.StallTimeout), 0, ""},
		{"request-timeout", int64(f.RequestTimeout), 0, "DEADLINE_EXCEEDED"},
		{"idle-timeout", int64(f.IdleTimeout), 1, ""},
		{"max-chat-age", int64(f.MaxChatAge), 0, "UNAVAILABLE"},
	}
}

// noteRate returns the notes per second of one client; 0 is no limit.
func (f *limitFlags) noteRate(ctx context.Context, listen string) float64 {
	if f.NoteRate >= 0 {
		return f.NoteRate
	}
	if isLoopback(ctx, listen) {
		return 0
	}
	return defaultNoteRate
}

// clientShare returns the share of one client, between 0 and 1; 0 is no limit.
func (f *limitFlags) clientShare(ctx context.Context, listen string) float64 {
	percent := f.ClientShare
	if percent == -1 && !isLoopback(ctx, listen) {
		percent = defaultClientShare
	}
	if percent == -1 || percent == 100 {
		return 0
	}
	return percent / 100
}

func (f *limitFlags) chats(store notes.Store, history int) chat.Options {
	return chat.Options{
		Store:           store,
		History:         history,
		MaxText:         int(f.MaxText),
		MaxPending:      f.MaxPending,
		MaxPendingInAll: f.MaxPendingInAll,
	}
}
