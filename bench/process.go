package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// ran is what became of a process.
type ran struct {
	seconds float64
	code    int
	peak    int64 // resident bytes; 0 where the system does not say
	stderr  string
}

// watch runs a program to its end and reads its peak memory from Linux's
// VmHWM, which never falls, so that the last look counts. (The kernel's ru_maxrss of a
// child begins with what the parent had when it forked.)
func watch(ctx context.Context, program string, args ...string) (ran, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return ran{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var r ran
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			r.seconds = time.Since(start).Seconds()
			r.code, r.stderr = cmd.ProcessState.ExitCode(), tail(stderr.String())
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return r, err
			}
			return r, ctx.Err()
		case <-tick.C:
			r.peak = max(r.peak, peakMemory(cmd.Process.Pid))
		}
	}
}

func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		var kb int64
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			if _, err := fmt.Sscanf(rest, "%d kB", &kb); err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
