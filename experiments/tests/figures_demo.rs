//! Figures and report: same bytes twice, text large enough, nothing that a browser would fetch.

use backdoor_experiments::figures::{Axis, Figure, Heatmap, Panel, Point, Series, WITH_PNG};
use backdoor_experiments::report::Report;
use backdoor_experiments::results::{Manifest, ResultsDir};

fn figure() -> Figure {
    let line = (1..30).map(|i| {
        let x = f64::from(i) * 1e-3;
        Point::new(x, if i > 20 { 0.0 } else { 1e-3 / x }).between(0.0, 2e-3 / x)
    });
    let chart = Panel::new(Axis::log("deadline").seconds(), Axis::log("mistakes").unit("1/s"))
        .title("A & B")
        .series(Series::line("READ <1>", line.clone()).bars())
        .series(Series::steps("steps", line.clone()).band())
        .series(Series::points("points", line))
        .vertical_rule(0.01, "period");
    let map = Heatmap::new("x", "y").columns(["a", "b"]).row("r", [Some((1.0, "1".to_string())), None]);
    Figure::new("demo").title("Demo").caption("All at once.").columns(2).panel(chart).panel(Panel::heatmap(map))
}

#[test]
fn same_bytes_twice() {
    assert_eq!(figure().to_svg(), figure().to_svg());
    #[cfg(feature = "png")]
    assert!(figure().to_png().unwrap() == figure().to_png().unwrap());
}

#[test]
fn text_is_readable_in_print() {
    // 20 units are a point; nothing is set below 8 points.
    let svg = figure().to_svg();
    let sizes: Vec<f64> =
        svg.split("font-size=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
    assert!(sizes.len() > 20);
    assert!(sizes.iter().all(|size| *size >= 159.9), "{sizes:?}");
    assert!(svg.starts_with("<svg width=\"453.6pt\""));
}

#[test]
fn nothing_that_is_not_a_number_is_drawn() {
    let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-300, 1e300];
    for axes in [|label| Axis::linear(label), |label: &str| Axis::log(label)] {
        let points = odd.iter().flat_map(|x| odd.iter().map(move |y| Point::new(*x, *y).between(*y, *x)));
        let panel = Panel::new(axes("x"), axes("y").seconds());
        let series = points.collect::<Vec<_>>();
        let panel = panel.series(Series::line("a", series.clone()).band()).series(Series::steps("b", series).bars());
        let svg = Figure::new("odd").panel(panel).to_svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
    for empty in [Figure::new("none"), Figure::new("empty").panel(Panel::new(Axis::log("x"), Axis::linear("y")))] {
        assert!(empty.to_svg().starts_with("<svg "));
        #[cfg(feature = "png")]
        assert!(empty.to_png().is_ok());
    }
}

#[test]
fn files_and_report_are_written() {
    let place = tempfile::tempdir().unwrap();
    let manifest = Manifest::new(["backdoor".to_string()], 1, [("e", "")]);
    let dir = ResultsDir::create(place.path().join("out"), &manifest).unwrap();
    let svg = figure().write(&dir).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("figures/demo.svg")).unwrap(), svg);
    assert_eq!(dir.path().join("figures/demo.png").exists(), WITH_PNG);
    let mut report = Report::new("Results", dir.manifest());
    report.section("One").figure(&figure());
    let html = report.to_html();
    dir.write("report.html", html.as_bytes()).unwrap();
    assert!(html.contains("READ &lt;1&gt;") && html.contains("<svg "));
    for fetched in ["<link", "<script", "src=", "@import", "url("] {
        assert!(!html.contains(fetched), "{fetched}");
    }
}
