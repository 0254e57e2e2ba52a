//! Small plots for the documentation: lines over points, as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Plot {
    pub title: String,
    pub x: String,
    pub y: String,
    /// Whether each step to the right is ten times as much.
    #[serde(default)]
    pub log_x: bool,
    pub lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    #[error("nothing to draw")]
    Empty,
    #[error("cannot be drawn: {0}")]
    Draw(String),
}

const SIZE: (u32, u32) = (720, 360);
const COLORS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 89, 32),
    RGBColor(44, 140, 60),
    RGBColor(128, 80, 170),
    RGBColor(110, 110, 110),
];

/// The picture, as text.
pub fn draw(plot: &Plot) -> Result<String, PlotError> {
    let points = || plot.lines.iter().flat_map(|line| line.points.iter().copied());
    let most_y = points().map(|(_, y)| y).fold(f64::NAN, f64::max);
    let (least_x, most_x) =
        points().fold((f64::NAN, f64::NAN), |(least, most), (x, _)| (least.min(x), most.max(x)));
    if !(most_y.is_finite() && least_x.is_finite() && most_x.is_finite()) {
        return Err(PlotError::Empty);
    }
    let y = 0.0..(most_y * 1.15).max(f64::MIN_POSITIVE);
    if plot.log_x {
        let least = least_x.max(1.0);
        render(plot, (least..(most_x * 1.1).max(least * 1.1)).log_scale(), y)
    } else {
        render(plot, 0.0..(most_x * 1.05).max(f64::MIN_POSITIVE), y)
    }
}

fn render<X>(plot: &Plot, x: X, y: std::ops::Range<f64>) -> Result<String, PlotError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    let failed = |error: &dyn std::fmt::Display| PlotError::Draw(error.to_string());
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&plot.title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc(&plot.x)
            .y_desc(&plot.y)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .max_light_lines(0)
            .draw()
            .map_err(|error| failed(&error))?;
        for (line, color) in plot.lines.iter().zip(COLORS.iter().cycle()) {
            let (points, color) = (line.points.clone(), *color);
            let series = LineSeries::new(points.clone(), color.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(|error| failed(&error))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2)));
            chart
                .draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))
                .map_err(|error| failed(&error))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|error| failed(&error))?;
        root.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// `10,000,000` takes too much room.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", trim(value / 1e6)),
        value if value >= 1e4 => format!("{}k", trim(value / 1e3)),
        value => trim(value),
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(json: &str) -> Result<String, PlotError> {
        draw(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_plot_has_its_words_and_its_points() {
        for log in [true, false] {
            let json = format!(
                r#"{{"title":"Flat","x":"payers","y":"µs","log_x":{log},"lines":[{{"name":"verify","points":[[1,90],[100000,91]]}}]}}"#
            );
            let svg = plot(&json).unwrap();
            for word in ["<svg", "Flat", "payers", "verify", "<circle", "100k"] {
                assert!(svg.contains(word), "{word} is missing, log: {log}");
            }
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert!(matches!(plot(r#"{"title":"","x":"","y":"","lines":[]}"#), Err(PlotError::Empty)));
        let one = r#"{"title":"","x":"","y":"","lines":[{"name":"a","points":[[5,0]]}]}"#;
        assert!(plot(one).is_ok());
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(1.0, "1"), (0.25, "0.25"), (20_000.0, "20k"), (1_500_000.0, "1.5M"), (9000.0, "9000")]
        {
            assert_eq!(short(value), text);
        }
    }
}
