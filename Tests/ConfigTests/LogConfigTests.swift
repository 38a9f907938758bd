import Config
import Testing

@Suite("Levels by component") struct LogConfigTests {
    @Test("each line is a component and its level; comments and blank lines are not")
    func lines() throws {
        let text = "# all\r\narbiter=info\n\n worker = DEBUG # why\n\trouter\t=\tcritical\naccess = warning"
        #expect(
            try LogConfig.levels(in: text, path: "l") == [
                .arbiter: .info, .worker: .debug, .router: .critical, .access: .warning,
            ])
        #expect(try LogConfig.levels(in: "", path: "l").isEmpty)
    }

    @Test(
        "what is wrong is refused with file, line and what is allowed",
        arguments: [
            (
                "\nrooter = debug",
                "l, line 2: 'rooter = debug': expected one of arbiter, worker, connection, router, access"
            ),
            ("router = loud", "l, line 1: 'router = loud': expected one of debug, info, warning, error, critical"),
            ("router", "l, line 1: 'router': expected COMPONENT = LEVEL, as in router = debug"),
            ("router=info\nrouter=info", "l, line 2: 'router=info': router is given twice"),
            (
                "[loggers]",
                "l, line 1: '[loggers]': a logging configuration of Python is not read here; expected lines like router = debug"
            ),
        ])
    func refused(text: String, message: String) {
        let error = #expect(throws: OptionError.self) { try LogConfig.levels(in: text, path: "l") }
        #expect(error?.description == message)
    }
}
