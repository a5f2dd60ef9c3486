// Entry point: preferences, address, then the frame.
import { render } from "preact";
import { App } from "./app";
import { applyTheme } from "./lib/prefs";
import { startRouter } from "./lib/router";
import "./styles/base.css";
import "./styles/parts.css";

applyTheme();
startRouter();
render(<App />, document.getElementById("app")!);
