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
	MaxPending      int           `default:"262144" placeholder:"N" help:"Let this many notes of a chat wait for their replies (${default}). A client that has written so many is not read from until it reads."`
	MaxPendingInAll int           `name:"max-pending-in-all" default:"8388608" placeholder:"N" help:"Let this many notes of all chats wait for their replies (${default}, 192 MiB). Beyond it, the chat that has the most is ended. 0 is no bound."`
	NoteRate        float64       `default:"-1" placeholder:"N" help:"Take this many notes a second from a client, after ten seconds' worth at once; a faster one is read from more slowly. 0 is no bound. By default 1000, or no bound if only this machine can call."`
	StallTimeout    time.Duration `default:"1m" placeholder:"DURATION" help:"Reset a chat whose client takes longer than this to take 32 KiB that wait for it (${default}). 0 is never."`
	RequestTimeout  time.Duration `default:"30s" placeholder:"DURATION" help:"Let a request take this long to arrive, unless it is a RouteChat or a RecordRoute (${default}). 0 is no bound."`
	IdleTimeout     time.Duration `default:"5m" placeholder:"DURATION" help:"Close a connection that has had no call for this long (${default})."`
	ChatLife        time.Duration `default:"0s" placeholder:"DURATION" help:"End a chat that has lasted this long with UNAVAILABLE, once it has its replies. 0, the default, is never."`
}

// defaultNoteRate is how many notes a second a client may leave on a server that others than its own machine can
// call.
const defaultNoteRate = 1000

// maxNoteRate is the largest bound that makes sense of how many notes a second a client may leave.
const maxNoteRate = 1e8

func (f *limitFlags) check() error {
	if f.NoteRate != -1 && (f.NoteRate < 0 || f.NoteRate > maxNoteRate || math.IsNaN(f.NoteRate)) {
		return command.Usagef("--note-rate %g: want a number of notes up to %g, or 0 for no bound", f.NoteRate, maxNoteRate)
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

func (f *limitFlags) chats(store notes.Store, history int) chat.Options {
	return chat.Options{
		Store:           store,
		History:         history,
		MaxText:         int(f.MaxText),
		MaxChats:        f.MaxChats,
		MaxPending:      f.MaxPending,
		MaxPendingInAll: f.MaxPendingInAll,
		StallTimeout:    f.StallTimeout,
	}
}
