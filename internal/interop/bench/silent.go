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

// silent measures what an open chat takes of the server's memory that has said one thing and then
// nothing more.
func silent(contestants []*contestant) error {
	fmt.Printf("%d silent chats on %d connections: resident memory of the server for each\n", silentChats, silentConnections)
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
	before, err := settled(server)
	if err != nil {
		return 0, err
	}
	load, err := newClients(ctx, address, mode{chats: silentChats, connections: silentConnections, ahead: 1})
	if err != nil {
		return 0, err
	}
	defer load.close()
	errs := make(chan error, silentChats)
	var chatting sync.WaitGroup
	for _, chat := range load.chats {
		chatting.Go(func() {
			err := chat.Send(load.newNote())
			if err == nil {
				_, err = chat.Recv()
			}
			errs <- err
		})
	}
	chatting.Wait()
	for range silentChats {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	after, err := settled(server)
	if err != nil {
		return 0, err
	}
	return float64(after-before) / silentChats, nil
}

// settled returns the resident memory of a server once it does not change any more.
func settled(server *process.Process) (int64, error) {
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
