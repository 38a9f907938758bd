import Config
import Testing

@Suite("What a configuration file may hold") struct FlatTextTests {
    @Test(
        "texts, numbers, lists and comments are no fault",
        arguments: [
            "", "a = 1\r\nb = \"x\"", "bind = [\n 5000, # [one]\n '{', \"unix:/x\",\n]\nworkers = 2",
            "router = \"jq '{a: [1]}'\"", "router = '''\n[x]\n'y' {\n'''\nc=1", "a = \"\\\"[{\"", "a = '\\'\n#é [\n",
            "a = \"\"\"x\\\n  y\"\"\" # {\nlog-level = \"é\"", "\u{feff}a = 1e-5", "a = \"not closed\n",
            "a = ''\nb = \"\"",
        ])
    func flat(text: String) {
        #expect(FlatText.fault(in: text) == nil)
    }

    @Test(
        "tables, dates and characters without quotes are named with their line",
        arguments: [
            ("[x]", "line 1: no option has a table"), ("a = 1\n  [[x]]", "line 2: no option has a table"),
            ("a = '''\n\n'''\nb = { c = 1 }", "line 4: no option has a table"),
            ("a = [\n}", "line 2: no option has a table"),
            ("\u{feff}[=]", "line 1: no option has a table"),
            ("a = \"\"\"\\\n\"\"\"\n[", "line 3: no option has a table"),
            ("bind = 127.0.0.1:5", "line 1: no option has a date or a time, and texts are in quotes"),
            ("a = 1979-05-27t[", "line 1: no option has a date or a time, and texts are in quotes"),
            ("a = [\u{a0}x]", "line 1: outside of quotes there is plain ASCII alone"),
            ("a\u{b}", "line 1: outside of quotes there is plain ASCII alone"),
        ])
    func faults(text: String, message: String) {
        #expect(FlatText.fault(in: text)?.description == message)
    }
}
