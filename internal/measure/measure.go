// Package measure is what the benchmarks share: ratios of rounds that took turns, and what Linux says of
// a process.
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

// Median returns the middle one of some values, of which there must be one.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Ratios returns the median, the least and the greatest of the ratios of two measurements, round by
// round, as text.
func Ratios(values, against []float64) string {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / against[i]
	}
	return fmt.Sprintf("%.2f (%.2f, %.2f)", Median(ratios), slices.Min(ratios), slices.Max(ratios))
}

// clockTick is the unit of times in /proc: Linux has 100 a second on all its usual machines.
const clockTick = 10 * time.Millisecond

// CPU returns how much processor time a process has used, in user and system mode.
func CPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name of the process, in parentheses, may have spaces. User and system time are the 14th
	// and 15th fields of all.
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

// Memory returns how much memory a process has in bytes, by the name that Linux has for it: VmRSS is what
// is resident now, VmHWM the most that was.
func Memory(pid int, name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			var kib int64
			_, err := fmt.Sscan(rest, &kib)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}
