// Which of tproxy's processes this is: the arbiter, or a worker that an arbiter has spawned.

import Config
import Control
import Glibc
import Linux
import Logging
import Logs
import Proxy
import Supervisor
import SystemPackage

/// A role of this executable.
enum Role {
    /// Takes up the role and returns the exit status. A worker never touches the command line: the parser alone would
    /// double its memory.
    static func takeUp() -> Int32 {
        if WorkerInheritance.isPresent { return beWorker() }
        let arguments = Array(CommandLine.arguments.dropFirst())
        switch CommandLineOptions.parse(arguments: arguments, environment: environment()) {
        case .serve(let settings): return beArbiter(settings)
        case .answer(let text):
            say(text, to: STDOUT_FILENO)
            return 0
        case .refuse(let text):
            say(text, to: STDERR_FILENO)
            return CommandLineOptions.wrongOptionsStatus
        }
    }

    private static func beWorker() -> Int32 {
        // Started from /proc/self/exe it would be called "exe" by top and pgrep.
        ProcessTitle.setName(Product.name)
        do throws(InheritanceError) {
            return WorkerProcess.run(try WorkerInheritance.take())
        } catch {
            say("tproxy: \(error)", to: STDERR_FILENO)
            return WorkerProcess.bootFailureStatus
        }
    }

    private static func beArbiter(_ settings: Settings) -> Int32 {
        do throws(Errno) {
            let logFile = try LogFile(settings)
            return Arbiter.run(settings, log: Logger(logFile, .arbiter, settings), logFile: logFile)
        } catch {
            say("tproxy: the log \(settings.logFile) cannot be opened: \(error)", to: STDERR_FILENO)
            return WorkerProcess.bootFailureStatus
        }
    }

    private static func environment() -> [String: String] {
        var variables: [String: String] = [:]
        for entry in Linux.Process.environment() {
            guard let equals = entry.firstIndex(of: "=") else { continue }
            variables[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
        }
        return variables
    }

    private static func say(_ text: String, to descriptor: Int32) {
        var rest = Array((text.hasSuffix("\n") ? text : text + "\n").utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count == 0 || (errno != EINTR && errno != EAGAIN) {
                return
            } else {
                // The descriptor is shared, and somebody may have made it non-blocking.
                var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&room, 1, -1)
            }
        }
    }
}
