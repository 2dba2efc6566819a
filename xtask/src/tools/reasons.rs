//! The lines of a failed program's output that say why it failed. Pure.

/// Lines of one failure.
const LINES: usize = 5;
/// Lines of one program.
const MOST: usize = 40;
/// Characters of a line.
const WIDTH: usize = 300;

/// Returns the panics with their messages, and the rows of a table with FAIL in them and the lines
/// below that are indented deeper.
pub fn reasons(output: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        let (is_panic, is_row) = (line.contains(" panicked at "), line.contains(" FAIL "));
        // The rows are printed a second time below the panic of their test.
        if !(is_panic || is_row) || found.iter().any(|known| known == &cut(line)) {
            continue;
        }
        found.push(cut(line));
        let indent = indentation(line);
        let belongs = |next: &&str| {
            let ends = next.trim().is_empty() || next.trim() == "stack backtrace:" || next.contains(" FAIL ");
            !ends && (is_panic || indentation(next) > indent)
        };
        for _ in 1..LINES {
            let Some(next) = lines.next_if(belongs) else { break };
            found.push(cut(next));
        }
    }
    found.truncate(MOST);
    found
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn cut(line: &str) -> String {
    line.trim_end().chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_failed_rows_are_found_with_the_lines_below() {
        let output = "client_fin    client_left fin  client_left fin  ok   1.7 s\n\
                      serve_oom     serve_oom oom    serve_oom oom    FAIL 1.2 s\n  psi_io: expected 0, got nothing\n    ws close user=x\n\
                      serve_rst     serve_reset rst  serve_reset rst  ok   1.2 s\n\
                      thread 'every_fault' (7) panicked at t3-testkit/tests/host_faults.rs:38:5:\n\n\
                      serve_oom     serve_oom oom    serve_oom oom    FAIL 1.2 s\n  psi_io: expected 0, got nothing\n\
                      thread 'other' panicked at src/lib.rs:1:1:\nassertion failed: x\n  left: 1\n right: 2\nstack backtrace:\n   0: main\n";
        assert_eq!(
            reasons(output),
            [
                "serve_oom     serve_oom oom    serve_oom oom    FAIL 1.2 s",
                "  psi_io: expected 0, got nothing",
                "    ws close user=x",
                "thread 'every_fault' (7) panicked at t3-testkit/tests/host_faults.rs:38:5:",
                "thread 'other' panicked at src/lib.rs:1:1:",
                "assertion failed: x",
                "  left: 1",
                " right: 2",
            ]
        );
        assert_eq!(reasons("test a ... ok\n1 passed, 0 failed\n"), [""; 0]);
    }

    #[test]
    fn a_long_output_is_cut() {
        let output = format!("x FAIL {}\n", "y".repeat(400)) + &"row FAIL 1\nrow FAIL 2\n".repeat(50);
        let found = reasons(&output);
        assert_eq!((found.len(), found[0].len()), (3, WIDTH));
        let many: String = (0..50).map(|n| format!("row{n} FAIL 1\n")).collect();
        assert_eq!(reasons(&many).len(), MOST);
    }
}
