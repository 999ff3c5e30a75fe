package main

import (
	"context"
	"math"
	"time"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/chat"
	"example.com/routeguide/server/notes"
)

// limitFlags bound what clients may take. Their defaults suit a server for strangers on a machine with a few
// gigabytes of memory.
type limitFlags struct {
	MaxText         byteSize      `default:"64KiB" placeholder:"BYTES" help:"Take notes with texts up to this length (${default}); all of a note may be 1 KiB longer."`
	MaxMessage      byteSize      `default:"512KiB" placeholder:"BYTES" help:"Take messages up to this length, when they are unpacked (${default})."`
	MaxHeader       byteSize      `default:"64KiB" placeholder:"BYTES" help:"Take request headers up to this length (${default})."`
	MaxConnections  int           `default:"10000" placeholder:"N" help:"Hold this many connections (${default}). Further ones wait. 0 is no bound."`
	MaxStreams      int           `default:"1000" placeholder:"N" help:"Hold this many calls on one connection (${default})."`
	MaxChats        int           `default:"100000" placeholder:"N" help:"Hold this many chats in all (${default}). Further ones get RESOURCE_EXHAUSTED. 0 is no bound."`
	MaxCalls        int           `default:"5000" placeholder:"N" help:"Hold this many calls that are no chats (${default}), and as many questions about health. Further ones get RESOURCE_EXHAUSTED. 0 is no bound."`
	MaxArriving     byteSize      `default:"64MiB" placeholder:"BYTES" help:"Hold this much of notes longer than 4 KiB that have arrived in part (${default}). Further ones get RESOURCE_EXHAUSTED. 0 is no bound."`
	ClientShare     float64       `default:"-1" placeholder:"PERCENT" help:"Let one client hold this part of the connections, chats and calls, and of what arrives. 100 is all of it. By default 10, or 100 if only this machine can call."`
	MaxPending      int           `default:"262144" placeholder:"N" help:"Let this many notes of a chat wait for their replies (${default}). A client that has written so many is not read from until it reads."`
	MaxPendingInAll int           `name:"max-pending-in-all" default:"8388608" placeholder:"N" help:"Let this many notes of all chats wait for their replies (${default}, 192 MiB). Beyond it, the chats that have the most are ended. 0 is no bound."`
	NoteRate        float64       `default:"-1" placeholder:"N" help:"Take this many notes a second from a client, after ten seconds' worth at once; a faster one is read from more slowly. 0 is no bound. By default 1000, or no bound if only this machine can call."`
	StallTimeout    time.Duration `default:"1m" placeholder:"DURATION" help:"Reset a chat whose client takes longer than this to take 32 KiB that wait for it, and any other call whose client does so with 16 KiB (${default}). 0 is never."`
	RequestTimeout  time.Duration `default:"30s" placeholder:"DURATION" help:"Let a request take this long to arrive, and a note of a RouteChat once it has begun to; a RecordRoute may take longer (${default}). 0 is no bound."`
	IdleTimeout     time.Duration `default:"5m" placeholder:"DURATION" help:"Close a connection that has had no call for this long (${default})."`
	ChatLife        time.Duration `default:"0s" placeholder:"DURATION" help:"End a chat that has lasted this long with UNAVAILABLE, once it has its replies. 0, the default, is never."`
}

// defaultClientShare is what one client may hold, in percent, of a server that others than its own machine can call:
// it takes several addresses to keep others out.
const defaultClientShare = 10

// defaultNoteRate is how many notes a second a client may leave on a server that others than its own machine can
// call.
const defaultNoteRate = 1000

// maxNoteRate is the largest bound that makes sense of how many notes a second a client may leave.
const maxNoteRate = 1e8

func (f *limitFlags) check() error {
	if f.NoteRate != -1 && (f.NoteRate < 0 || f.NoteRate > maxNoteRate || math.IsNaN(f.NoteRate)) {
		return command.Usagef("--note-rate %g: want a number of notes up to %g, or 0 for no bound", f.NoteRate, maxNoteRate)
	}
	if f.ClientShare != -1 && !(f.ClientShare > 0 && f.ClientShare <= 100) {
		return command.Usagef("--client-share %g: want a percentage, above 0 and up to 100", f.ClientShare)
	}
	for _, limit := range []struct {
		flag  string
		value int64
		least int64
	}{
		{"max-text", int64(f.MaxText), 0},
		{"max-message", int64(f.MaxMessage), 1},
		{"max-header", int64(f.MaxHeader), 1},
		{"max-connections", int64(f.MaxConnections), 0},
		{"max-streams", int64(f.MaxStreams), 1},
		{"max-chats", int64(f.MaxChats), 0},
		{"max-calls", int64(f.MaxCalls), 0},
		{"max-arriving", int64(f.MaxArriving), 0},
		{"max-pending", int64(f.MaxPending), 1},
		{"max-pending-in-all", int64(f.MaxPendingInAll), 0},
		{"stall-timeout", int64(f.StallTimeout), 0},
		{"request-timeout", int64(f.RequestTimeout), 0},
		{"idle-timeout", int64(f.IdleTimeout), 1},
		{"chat-life", int64(f.ChatLife), 0},
	} {
		if limit.value < limit.least {
			return command.Usagef("--%s: want %d or more", limit.flag, limit.least)
		}
	}
	return nil
}

// noteRate returns how many notes a second a client may leave, on a server that listens there.
func (f *limitFlags) noteRate(ctx context.Context, listen string) float64 {
	if f.NoteRate >= 0 {
		return f.NoteRate
	}
	if isLoopback(ctx, listen) {
		return 0
	}
	return defaultNoteRate
}

// clientShare returns which part of what there is one client may hold, between 0 and 1, on a server that listens there.
// 0 is no bound.
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
		StallTimeout:    f.StallTimeout,
	}
}
