//! stub
/// stub
pub fn run(_args: &crate::cli::LiveArgs) -> anyhow::Result<()> {
    Ok(())
}
