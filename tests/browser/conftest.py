"""A headless Chromium for the tests of pages: Debian's packages, as `make test-browser` installs them."""

import json
import shutil

import pytest
import soundfile

DARK, LIGHT = "dark", "light"


class Browser:
    """Chromium, and what the tests ask of it.

    Arguments
    ---------
    driver : selenium.webdriver.Chrome
        It.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, width=1200, scheme=LIGHT):
        """Open a page in a window of a width, with the colours that the user prefers."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # empties it
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)
        self.driver.get(url)

    def command(self, name, **arguments):
        """A command of Chromium's DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script, *arguments):
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script, *arguments, seconds=20):
        """Wait until a script returns something true, and give that."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(
            lambda driver: driver.execute_script(script, *arguments), script
        )

    def find(self, selector):
        """The elements that a CSS selector names."""
        return self.driver.find_elements("css selector", selector)

    def messages(self):
        """What is on the console since the page was opened."""
        return self.driver.get_log("browser")

    def requests(self):
        """The addresses that were asked for since the page was opened, or last time."""
        events = (
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")
        )
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="session")
def browser(tmp_path_factory, speech):
    """A `Browser` that reaches this computer alone, and whose microphone hears speech."""
    from selenium import webdriver

    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if not path]
    if missing:
        pytest.fail(f"{' and '.join(missing)} not found: run `make test-browser`")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, speech.numpy(), 16000)
    # In a container there is neither a user namespace nor much shared memory.
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ):
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = webdriver.ChromeService(programs["chromedriver"])
    driver = webdriver.Chrome(options, service)
    yield Browser(driver)
    driver.quit()
