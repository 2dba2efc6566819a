//! Output of xtask: one line per step, with indented results below.

use std::time::Duration;

/// Prints the start of a step.
pub fn step(text: &str) {
    println!("==> {text}");
}

/// Prints a fact about the current step.
pub fn note(text: &str) {
    println!("    {text}");
}

/// Prints the end of a program's output between two marks.
pub fn excerpt(title: &str, text: &str, max_lines: usize) {
    println!("    --- {title} ---");
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(max_lines);
    if skip > 0 {
        println!("    … {skip} earlier lines");
    }
    for line in &lines[skip..] {
        println!("    {line}");
    }
    println!("    --- end ---");
}

/// `1.2 s`, `75 s`, `4 min 05 s`.
pub fn took(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{secs} s"),
        _ => format!("{} min {:02} s", secs / 60, secs % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::took;
    use std::time::Duration;

    #[test]
    fn the_unit_of_a_duration_follows_its_length() {
        assert_eq!(took(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(took(Duration::from_secs(75)), "75 s");
        assert_eq!(took(Duration::from_secs(245)), "4 min 05 s");
    }
}
