package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"example.com/routeguide/internal/process"
)

// twoServersRound measures two fresh servers on a fresh Redis: from leaving a note on one to hearing it on the other.
func twoServersRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	folder, err := os.MkdirTemp("", "bench-redis")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	redis, url, err := startRedis(folder)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, redis.Kill()) }()
	on := *c
	on.args = serverArgs(url, options)
	ctx, cancel := context.WithTimeout(context.Background(), liveTimeout)
	defer cancel()
	run, err := on.startLive(mode, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.end()) }()
	other, address, err := on.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, other.Kill()) }()
	leaving, err := dial(address, 1, options)
	if err != nil {
		return nil, err
	}
	defer leaving.close()
	run.leaver.connection = leaving[0]
	if run.followers, err = run.followLocation(ctx, run.following, mode.followers); err != nil {
		return nil, err
	}
	if err := run.deliver(ctx, liveWarmUp); err != nil {
		return nil, err
	}
	run.latency()
	if _, _, err := run.during(ctx, func() error { return run.deliver(ctx, mode.notes) }); err != nil {
		return nil, err
	}
	p50, p99 := run.latency()
	return []float64{p50, p99}, nil
}

// startRedis starts a Redis server that syncs once a second, and returns it with its URL.
func startRedis(folder string) (redis *process.Process, url string, err error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, "", fmt.Errorf("install redis-server, or run `make tools`: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	redis, err = process.Start("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes")
	if err != nil {
		return nil, "", err
	}
	if _, err := redis.Await("Ready to accept connections"); err != nil {
		return nil, "", errors.Join(err, redis.Kill())
	}
	return redis, "redis://127.0.0.1:" + port, nil
}
