//! A page of the browser and the actions of a user.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::devtools::DevTools;
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// A page, open until the browser ends or [`Page::close`].
#[derive(Debug)]
pub struct Page(DevTools);

impl Page {
    pub(super) fn attach(address: SocketAddr, target: &str) -> Result<Self> {
        DevTools::connect(address, &format!("/devtools/page/{target}")).map(Self)
    }

    /// The value of an expression in the page; for a promise, its result.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.0.command("Runtime.evaluate", params)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            return Err(TestError::Unexpected {
                what: format!("a value of {expression:?} in the page"),
                got: thrown.to_string(),
            });
        }
        Ok(answer.pointer_mut("/result/value").map_or(Value::Null, Value::take))
    }

    /// Evaluates an expression without waiting for its result.
    pub fn begin(&mut self, expression: &str) -> Result<()> {
        self.evaluate(&format!("void ({expression})")).map(drop)
    }

    /// Waits until an expression is true. While the page loads, an exception counts as false.
    pub fn until(&mut self, expression: &str, limit: Duration) -> Result<()> {
        let guarded = format!("(() => {{ try {{ return !!({expression}) }} catch {{ return false }} }})()");
        let what = format!("{expression:?} in the page");
        wait::until(&what, limit, || match self.evaluate(&guarded) {
            Ok(Value::Bool(true)) => Some(()),
            _ => None,
        })
    }

    /// Reloads it, as F5 does.
    pub fn reload(&mut self) -> Result<()> {
        self.0.command("Page.reload", json!({})).map(drop)
    }

    /// Navigates as a user who types an address.
    pub fn navigate(&mut self, url: &str) -> Result<()> {
        self.0.command("Page.navigate", json!({ "url": url })).map(drop)
    }

    /// Freezes or resumes timers and scripts, as Chromium does with a page in the background.
    pub fn freeze(&mut self, frozen: bool) -> Result<()> {
        let state = if frozen { "frozen" } else { "active" };
        self.0.command("Page.setWebLifecycleState", json!({ "state": state })).map(drop)
    }

    /// Writes a screenshot to a PNG file.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let answer = self.0.command("Page.captureScreenshot", json!({ "format": "png" }))?;
        let text = answer.get("data").and_then(Value::as_str).unwrap_or_default();
        let bytes = BASE64.decode(text.as_bytes()).map_err(|error| TestError::Unexpected {
            what: "a screenshot in base64".to_owned(),
            got: error.to_string(),
        })?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).attempt(|| format!("create {}", folder.display()))?;
        }
        fs::write(file, bytes).attempt(|| format!("write {}", file.display()))
    }

    /// Closes it, as a user closes a tab.
    pub fn close(mut self) -> Result<()> {
        self.0.command("Page.close", json!({})).map(drop)
    }
}
