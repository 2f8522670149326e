/**
 * The entry of the watch page. A module runs only when all that it imports is there: the request for the
 * channel must not wait for what shows it, so that this comes second.
 */

import "./opening";

void import("./watch");
