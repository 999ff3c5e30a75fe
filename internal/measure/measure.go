// Package measure has what the benchmarks share: medians and ratios over rounds, and CPU time and memory of a process
// from /proc.
package measure

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Median returns the median of values, the upper one of two. There must be at least one value.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Spread returns values as text, each in a format: median (min, max). There must be at least one value.
func Spread(format string, values []float64) string {
	return fmt.Sprintf(format+" ("+format+", "+format+")", Median(values), slices.Min(values), slices.Max(values))
}

// Ratios returns the ratios of values to against, round by round, as text: median (min, max).
func Ratios(values, against []float64) string {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / against[i]
	}
	return Spread("%.2f", ratios)
}

// clockTick is the unit of times in /proc: USER_HZ is 100 on all common platforms.
const clockTick = 10 * time.Millisecond

// CPU returns the CPU time of a process, user and system.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The process name, in parentheses, may contain spaces. User and system time are fields 14 and 15.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	total := 0
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		total += ticks
	}
	return time.Duration(total) * clockTick, nil
}

// Memory returns a memory figure of a process in bytes, by its name in /proc/PID/status: VmRSS is the resident set,
// RssAnon the part of it that is no file's, and VmHWM its peak.
func Memory(pid int, name string) (int64, error) {
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), name)
	return kib << 10, err
}

// Written returns the number of bytes that a process has caused to be written to disks.
func Written(pid int) (int64, error) {
	return field(fmt.Sprintf("/proc/%d/io", pid), "write_bytes")
}

// field returns the number after a name in a file of /proc.
func field(file, name string) (number int64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			_, err := fmt.Sscan(rest, &number)
			return number, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
