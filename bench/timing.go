package bench

import (
	"context"
	"time"

	"github.com/fortet/fortet/gpu"
)

// pace is how long a case is timed.
type pace struct {
	atLeast time.Duration // of all repetitions together; three there are always
	most    int           // repetitions; 0: a thousand
}

// timeCase times repetitions of a case that has run. On a GPU a repetition is
// the time between two events around a run of launches, divided by their number;
// elsewhere it is wall clock around launches and the wait for them. Launches
// follow each other as in a solver: what one hides of the next one's start is
// hidden here, too.
func timeCase(ctx context.Context, dev gpu.Device, c *Case, p pace) ([]float64, error) {
	measure, sample := byClock, 50*time.Microsecond
	if dev.Properties().Kind == gpu.CUDA {
		measure, sample = byEvents, time.Millisecond
	}
	if p.most == 0 {
		p.most = 1000
	}
	first, err := measure(dev, 1, c.Run)
	if err != nil {
		return nil, err
	}
	launches := max(1, min(1000, int(sample.Seconds()/max(first, 1e-9))))
	var times []float64
	for total := 0.0; len(times) < 3 || total < p.atLeast.Seconds() && len(times) < p.most; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		took, err := measure(dev, launches, c.Run)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
		total += took * float64(launches)
	}
	return times, nil
}

// byClock is the seconds of a launch, of some in a row and the wait for them.
func byClock(dev gpu.Device, launches int, run func() error) (float64, error) {
	start := time.Now()
	for range launches {
		if err := run(); err != nil {
			return 0, err
		}
	}
	if err := dev.Sync(); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds() / float64(launches), nil
}

// byEvents is the seconds of a launch by the device's own clock.
func byEvents(dev gpu.Device, launches int, run func() error) (float64, error) {
	start, err := dev.Mark()
	if err != nil {
		return 0, err
	}
	defer start.Close()
	for range launches {
		if err := run(); err != nil {
			return 0, err
		}
	}
	end, err := dev.Mark()
	if err != nil {
		return 0, err
	}
	defer end.Close()
	if err := end.Sync(); err != nil {
		return 0, err
	}
	took, err := end.Since(start)
	return took.Seconds() / float64(launches), err
}
