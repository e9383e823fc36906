package dataset

import (
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var sayMissing sync.Once

// realData returns a file of the data that lies beside a developer's
// checkout, or skips.
func realData(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("FORTET_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		sayMissing.Do(func() { t.Logf("not run: no real data at %s (set FORTET_DATA)", dir) })
		t.Skip("no " + path)
	}
	return path
}

func TestRealTimeCourses(t *testing.T) {
	path := realData(t, "timecourse/emt.csv")
	all := load(t, "csv:"+path+"?label=samples")
	require.Equal(t, []int{3133, 10}, []int{all.N, all.D})
	require.Equal(t, []string{"0", "1", "2", "3"}, all.Classes)
	total := 0
	for _, day := range all.Classes {
		p := load(t, "csv:"+path+"?where=samples=="+day)
		require.Equal(t, 10, p.D)
		require.Equal(t, "x1", p.Names[0])
		total += p.N
	}
	require.Equal(t, 3133, total)

	path = realData(t, "timecourse/mouse_hematopoiesis.csv")
	for day, n := range map[string]int{"0": 1429, "1": 3781, "2": 5788} {
		p := load(t, "csv:"+path+"?columns=x1,x2&where=samples=="+day)
		require.Equal(t, []int{n, 2}, []int{p.N, p.D})
	}
}

func TestRealExchangeRates(t *testing.T) {
	path := realData(t, "timeseries/exchange_rate.txt.gz")
	p := load(t, "csv:"+path+"?header=no")
	require.Equal(t, []int{7588, 8}, []int{p.N, p.D})
	require.Equal(t, []float64{0.785500, 1.611000}, p.Row(0)[:2])
	require.Equal(t, p.X[:6071*8], load(t, "csv:"+path+"?header=no&n=6071").X)
}

func TestRealCIFAR(t *testing.T) {
	folder := realData(t, "cifar10")
	s, err := Open("cifar10:" + folder)
	require.NoError(t, err)
	n, _ := s.Finite()
	require.Equal(t, 10000, n)
	p := load(t, "cifar10:"+folder+"?split=test")
	count := make([]int, 10)
	var mean float64
	for i, label := range p.Labels {
		count[label]++
		for _, v := range p.Row(i) {
			mean += v / float64(len(p.X))
		}
	}
	require.Equal(t, []int{200, 200, 200, 200, 200, 200, 200, 200, 200, 200}, count)
	// The data set's mean over all channels is .473; that of 2000 pictures,
	// whose own means deviate by .12, is within five standard errors of it.
	require.False(t, !(math.Abs(mean-0.473) <= 5*0.12/math.Sqrt(2000)), "mean %g", mean)
	cats := load(t, "cifar10:"+folder+"?split=test&class=cat&n=7")
	require.Equal(t, []int{3, 3, 3, 3, 3, 3, 3}, cats.Labels)
}
