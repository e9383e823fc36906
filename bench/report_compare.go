package bench

import (
	"bytes"
	"fmt"
	"strconv"
)

// compareTable writes the rows that `fortet bench --out` leaves on a machine
// with a GPU: for each kernel the times of CPU and GPU at the largest size that
// both were measured at.
func compareTable(b *bytes.Buffer, rows []Row) {
	type kernel struct {
		name                      string
		d, k, marginals, problems int
		settings                  string
	}
	of := func(r Row) kernel { return kernel{r.Name, r.D, r.K, r.Marginals, r.Problems, r.Settings} }
	type size struct {
		kernel
		n, m int
	}
	cpu := map[size]float64{}
	for _, r := range rows {
		if r.Device == "cpu" {
			cpu[size{of(r), r.N, r.M}] = r.Seconds.Minimum
		}
	}
	type lane struct {
		kernel
		device, precision string
	}
	largest, order := map[lane]Row{}, []lane{}
	for _, r := range rows {
		at := lane{of(r), r.Device, r.Precision}
		if _, both := cpu[size{of(r), r.N, r.M}]; r.Device == "cpu" || !both {
			continue
		}
		if best, seen := largest[at]; !seen {
			order = append(order, at)
			largest[at] = r
		} else if r.N > best.N {
			largest[at] = r
		}
	}
	if len(order) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## A GPU beside the CPU\n\n%s.\n\n", largest[order[0]].Title())
	b.WriteString(`By ` + "`fortet bench`" + `, each kernel at the largest size that both were measured at.

`)
	var lines [][]string
	for _, at := range order {
		r := largest[at]
		host, fraction := cpu[size{at.kernel, r.N, r.M}], ""
		if r.Limit != nil {
			fraction = percent(r.Limit.Fraction) + " of " + r.Limit.Binding
		}
		lines = append(lines, []string{
			r.Name, strconv.Itoa(r.D), strconv.Itoa(r.N), r.Device, r.Precision, number3(1e3 * host), number3(1e3 * r.Seconds.Minimum),
			number3(host / r.Seconds.Minimum), fraction,
		})
	}
	table(b, []string{"kernel", "d", "size", "GPU", "precision", "CPU ms", "GPU ms", "speed-up", "of the limit"}, lines)
}
