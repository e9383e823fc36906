package bass1d_test

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/solver/bass1d"
)

func ExampleSolve() {
	source, err := bass1d.Normal(0, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	target, err := bass1d.Normal(0, .1)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := bass1d.Solve(context.Background(), bass1d.Problem{Source: source, Target: target, Epsilon: 1, Beta: 10}, bass1d.Settings{N: 401})
	if err != nil {
		fmt.Println(err)
		return
	}
	end, err := r.At(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, score, sigma := end.At(1)
	fmt.Printf("%v: J/2 %.6f, X_T(1) %.4f, w_T'(1) %.4f, volatility %.4f\n", r.Status, r.Dual, x, score, sigma)
	// Output: converged: J/2 0.907721, X_T(1) 0.6204, w_T'(1) -3.7958, volatility 0.6204
}
