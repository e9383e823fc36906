package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/solver/geometry"
)

// distribution is the flag of commands that several processes can share.
type distribution struct{ through string }

func (d *distribution) declare(f *pflag.FlagSet) {
	f.StringVar(&d.through, "distributed", "none", "share the work with the processes that mpirun or Slurm started beside this one, through mpi or nccl; none: this process alone")
}

// sharing is the flags of solvers whose rows several processes can share.
type sharing struct {
	distribution
	shards int
}

func (p *sharing) declare(f *pflag.FlagSet) {
	p.distribution.declare(f)
	f.IntVar(&p.shards, "shards", 0, "cut the rows into so many shards, which processes share: the same number gives the same bits, however many there are; 0: 8, or as many as there are processes, up to a power of two")
}

// check reports shards that nobody can have.
func (p *sharing) check() error {
	if p.shards < 0 {
		return usagef("--shards: got %d, want at least 1", p.shards)
	}
	return nil
}

// asked says whether the flags want shards.
func (p *sharing) asked() bool { return p.through != "none" || p.shards > 0 }

// shard cuts the rows of a geometry into shards for the processes of the group, if
// the flags want it. All processes then stop together: s.ctx is done on all of
// them once one is interrupted.
func (s *session) shard(g geometry.Geometry, p sharing) (geometry.Geometry, error) {
	if !p.asked() {
		return g, nil
	}
	dev, err := s.open()
	if err != nil {
		return nil, err
	}
	group := s.joined
	if group == nil {
		group = collective.Self(dev)
	}
	shared := geometry.Sharded{Geometry: g, Shards: p.shards}
	shared.Team, s.ctx = geometry.Join(s.ctx, dev, group)
	return shared, nil
}

// sharingReport says how many processes took part, and how many pieces they
// shared.
type sharingReport struct {
	Processes int `json:"processes,omitempty"` // where rows were cut into shards
	Shards    int `json:"shards,omitempty"`
}

func shared(g geometry.Geometry) sharingReport {
	if s, ok := g.(geometry.Sharded); ok {
		return sharingReport{s.Team.Size(), s.Pieces()}
	}
	return sharingReport{}
}

// distributedHelp stands below the flags.
const distributedHelp = `
Several processes, each with the rows of its shards:
  mpirun -np 2 fortet solve --source 'normal?n=20000' --target '8gaussians?n=20000' --epsilon 0.1 --distributed mpi --potentials plan.npz
Every process reads the inputs; the first one writes files and standard output.
Those on one machine share its cores, or take --workers each, and with
--device cuda each takes the GPU of its number. A process that no launcher
started is alone, and --shards 8 without --distributed gives the same bits.
`

// join opens the device, and the group that the flag names. All processes read
// the same inputs and take the same decisions; that of rank 0 writes files,
// standard output and progress. A command that joins passes what it ends with
// through agree, so that all processes exit with one code.
func (s *session) join(d distribution) error {
	switch d.through {
	case "none", "":
		return nil
	case "mpi", "nccl":
	default:
		return usagef("--distributed: got %q, want mpi, nccl or none", d.through)
	}
	s.shared = true
	dev, err := s.open()
	if err != nil {
		return err
	}
	if s.joined, err = collective.Open(d.through, dev); err != nil {
		return fmt.Errorf("--distributed %s: %w", d.through, err)
	}
	if !s.lead() {
		s.stdout, s.quiet = io.Discard, true
	}
	return nil
}

// group is the processes that share the work; nil where --distributed is none.
func (s *session) group() collective.Group { return s.joined }

// lead says whether this process writes files and standard output.
func (s *session) lead() bool { return s.joined == nil || s.joined.Rank() == 0 }

// verdict is an error that all processes of a group have agreed on.
type verdict struct {
	text  string
	code  int
	quiet bool // it has been said, or another process says it
}

func (v *verdict) Error() string { return v.text }

// agree returns nil on all processes of the group if err is nil on all, and
// otherwise an error on all: that of the first process that has one. It must be
// called by all processes, at the same place.
func (s *session) agree(err error) error {
	if s.joined == nil {
		return err
	}
	all, failed := s.exchange(err)
	if failed != nil {
		return errors.Join(err, fmt.Errorf("--distributed %s: %w", s.joined.Name(), failed))
	}
	for rank, said := range all {
		code, text, _ := strings.Cut(said, " ")
		if code == "0" {
			continue
		}
		v := &verdict{text: text, quiet: !s.lead()}
		if v.code, failed = strconv.Atoi(code); failed != nil {
			return fmt.Errorf("--distributed %s: rank %d sent %q", s.joined.Name(), rank, said)
		}
		if rank > 0 {
			v.text = fmt.Sprintf("rank %d: %s", rank, text)
		}
		return v
	}
	return nil
}

// exchange is the exit codes and errors of all processes.
func (s *session) exchange(err error) ([]string, error) {
	const room = 1024
	said := strconv.Itoa(exitCode(s.ctx, err))
	if err != nil {
		said += " " + oneLine(err)
	}
	mine := make([]byte, room)
	copy(mine, said)
	size := s.joined.Size()
	all, out := make([]byte, room*size), make([]string, size)
	buffer, failed := s.dev.Alloc(len(all))
	if failed != nil {
		return nil, failed
	}
	defer s.dev.Free(buffer)
	part := buffer.Slice(room*s.joined.Rank(), room)
	if failed := s.dev.Upload(part, mine); failed != nil {
		return nil, failed
	}
	if failed := s.joined.Gather(buffer, part); failed != nil {
		return nil, failed
	}
	if failed := s.dev.Download(all, buffer); failed != nil {
		return nil, failed
	}
	for rank := range out {
		out[rank] = strings.TrimRight(string(all[rank*room:][:room]), "\x00")
	}
	return out, nil
}

// part leaves the group. Where this process fails alone, it must not wait for
// the others, who wait for it: the launcher ends them all when it exits.
func (s *session) part(err error) error {
	if s.joined == nil {
		return err
	}
	var agreed *verdict
	if err != nil && !errors.As(err, &agreed) {
		if !s.lead() {
			err = fmt.Errorf("rank %d: %w", s.joined.Rank(), err)
		}
		return err
	}
	if agreed != nil && !agreed.quiet {
		// A launcher ends the others as soon as one exits with a code that is not
		// 0: it is said before that.
		complain(s.stderr, agreed.code, agreed)
		agreed.quiet = true
	}
	return errors.Join(err, s.joined.Barrier(), s.joined.Close())
}

// localSize is how many processes were started together on this machine, this
// one included. Each launcher says it in a variable of its own.
func localSize() int {
	for _, name := range []string{
		"OMPI_COMM_WORLD_LOCAL_SIZE", // Open MPI
		"MPI_LOCALNRANKS",            // MPICH, Intel MPI
		"LOCAL_WORLD_SIZE",           // torchrun
		"SLURM_NTASKS_PER_NODE",
	} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
			return n
		}
	}
	return collective.LocalRank() + 1
}

// take opens the device that the flags name. A process of several on one machine
// takes, where the flags leave it open, the GPU of its number and its part of the
// cores.
func (s *session) take() (gpu.Device, error) {
	o := gpu.Options{Workers: s.workers}
	if !s.shared {
		return gpu.OpenWith(s.device, o)
	}
	if o.Workers == 0 {
		o.Workers = coresOf(localSize(), runtime.GOMAXPROCS(0), cores("self"), cores(strconv.Itoa(os.Getppid())))
	}
	own := fmt.Sprintf("cuda:%d", collective.LocalRank())
	switch s.device {
	case "cuda":
		return gpu.OpenWith(own, o)
	case "auto":
		if dev, err := gpu.OpenWith(own, o); err == nil {
			return dev, nil
		}
	}
	return gpu.OpenWith(s.device, o)
}

// coresOf is how many of the cores each of size processes takes. The launcher may
// have bound them to cores, which the process then shares with those that are
// bound to the same ones. usable is what the process may use, own the cores that
// it is bound to, all those that the launcher has; 0 where they are not known.
func coresOf(size, usable, own, all int) int {
	if own > 0 && own < all {
		return max(1, min(usable, all/size))
	}
	return max(1, usable/size)
}

// cores is how many cores a process is bound to, 0 where the system does not say.
func cores(process string) int {
	status, err := os.ReadFile("/proc/" + process + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return countList(strings.TrimSpace(list))
		}
	}
	return 0
}

// countList counts the numbers of a list such as 0-3,8; 0 where it is none.
func countList(list string) int {
	n := 0
	for _, part := range strings.Split(list, ",") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		a, err1 := strconv.Atoi(low)
		b, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil || a < 0 || b < a {
			return 0
		}
		n += b - a + 1
	}
	return n
}
