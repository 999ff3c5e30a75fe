package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

const (
	silentName        = "silent chats"
	silentChats       = 10_000
	silentConnections = 100
)

// silent measures the server's memory for each idle chat, after one note.
func silent(contestants []*contestant) error {
	fmt.Printf("%d silent chats on %d connections: resident memory of the server per chat\n", silentChats, silentConnections)
	reference := 0.0
	for _, contestant := range contestants {
		if contestant.name == "ours, pebble" {
			continue
		}
		each, err := contestant.silent()
		if err != nil {
			return fmt.Errorf("%s: %w", contestant.name, err)
		}
		if reference == 0 {
			reference = each
		}
		fmt.Printf("%s: %.1f kB, %.2f of grpc-go's\n", contestant.name, each/1000, each/reference)
	}
	return nil
}

func (c *contestant) silent() (bytes float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return 0, err
	}
	defer server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	before, err := settledMemory(server)
	if err != nil {
		return 0, err
	}
	load, err := newClients(ctx, address, mode{chats: silentChats, connections: silentConnections, ahead: 1})
	if err != nil {
		return 0, err
	}
	defer load.close()
	errs := make(chan error, silentChats)
	var running sync.WaitGroup
	for _, chat := range load.chats {
		running.Go(func() {
			err := chat.Send(load.newNote())
			if err == nil {
				_, err = chat.Recv()
			}
			errs <- err
		})
	}
	running.Wait()
	for range silentChats {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	after, err := settledMemory(server)
	if err != nil {
		return 0, err
	}
	return float64(after-before) / silentChats, nil
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
