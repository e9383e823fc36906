package discrete_test

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/solver/discrete"
)

func ExampleSolveChain() {
	p, err := discrete.NewDense(3, []float64{
		.7, .2, .1,
		.1, .8, .1,
		.2, .3, .5,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	bridge, err := discrete.SolveChain(ctx, discrete.Chain{
		Transitions: []*discrete.Matrix{p},
		Steps:       4,
		Marginals:   discrete.Ends([]float64{.6, .3, .1}, []float64{.2, .2, .6}, 4),
	}, discrete.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	laws, err := bridge.Marginals(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v: KL %.6f, law of step 2 %.4f\n", bridge.Status, bridge.Certificate.KL, laws[6:9])
	// Output:
	// converged: KL 0.490035, law of step 2 [0.3803 0.3986 0.2211]
}

func ExampleSolveJump() {
	g, err := discrete.NewDense(2, []float64{
		-1, 1,
		2, -2,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	bridge, err := discrete.SolveJump(ctx, discrete.Jump{
		Generators: []*discrete.Matrix{g},
		Durations:  []float64{1},
		Marginals:  discrete.Ends([]float64{1, 0}, []float64{.1, .9}, 1),
	}, discrete.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	moments, err := bridge.At(ctx, 0, .5, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range moments {
		fmt.Printf("t %.1f: law %.3f, rate up %.3f, rate down %.3f\n", m.Time, m.Marginal, m.Rates.At(0, 1), m.Rates.At(1, 0))
	}
	// Output:
	// t 0.0: law [1.000 0.000], rate up 1.134, rate down 1.763
	// t 0.5: law [0.626 0.374], rate up 1.712, rate down 1.168
	// t 1.0: law [0.100 0.900], rate up 19.415, rate down 0.103
}

func ExampleSolveChain_infeasible() {
	p, err := discrete.NewDense(2, []float64{
		1, 0,
		.5, .5,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = discrete.SolveChain(context.Background(), discrete.Chain{
		Transitions: []*discrete.Matrix{p},
		Steps:       3,
		Marginals:   discrete.Ends([]float64{.6, .4}, []float64{.5, .5}, 3),
	}, discrete.Settings{})
	fmt.Println(err)
	// Output:
	// discrete: infeasible problem: source state 0 with mass 0.6 reaches in 3 steps only target state 0, with mass 0.5
}
