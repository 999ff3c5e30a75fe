package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

var memory = []figure{{"memory of a chat, kB", "%.1f"}}

// silentRound measures a fresh server: the memory for each idle chat in kB, after one note. A chat on a connection of its own
// is a file in both processes: where the hard limit of open files is too low for that (ulimit -Hn), the round fails.
func silentRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Kill()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	before, err := settledMemory(server)
	if err != nil {
		return nil, err
	}
	load, err := newClients(ctx, address, mode, options)
	if err != nil {
		return nil, err
	}
	defer load.connections.close()
	errs := make([]error, len(load.chats))
	var running sync.WaitGroup
	for i, chat := range load.chats {
		running.Go(func() {
			if errs[i] = chat.Send(load.newNote()); errs[i] == nil {
				_, errs[i] = chat.Recv()
			}
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	after, err := settledMemory(server)
	if err != nil {
		return nil, err
	}
	return []float64{float64(after-before) / float64(len(load.chats)) / 1000}, nil
}

// settledMemory returns the resident memory of a server in bytes, once two samples are equal.
func settledMemory(server *process.Process) (int64, error) {
	last := int64(-1)
	for range 60 {
		now, err := measure.Memory(server.PID(), "VmRSS")
		if err != nil {
			return 0, err
		}
		if now == last {
			return now, nil
		}
		last = now
		time.Sleep(time.Second)
	}
	return last, nil
}
